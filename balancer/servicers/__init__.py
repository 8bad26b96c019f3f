"""The balancer's side of the contract: translate, ask the engine, translate back. No decision is made here."""
