# One command each: make demo, make test. Everything is installed into .venv and node_modules beside this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup proto

help: ## Shows this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

proto: ## Generates gpu_balancer/v1 from proto/
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I . --python_out=.. --mypy_out=.. \
	  --plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy gpu_balancer/v1/*.proto
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I . --grpc_python_out=.. --mypy_grpc_out=.. \
	  --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc gpu_balancer/v1/*_service.proto
