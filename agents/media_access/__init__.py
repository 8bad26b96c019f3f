"""What sessions may read and write: files under the operator's roots, and hosts that are public unless he says else.

Checks work on what will be opened, not on how it is spelled: paths after following links, hosts after resolving them,
URLs after following redirects. Every refusal names the field of the request and hides the secrets of URLs.
"""
