"""Posthorn as its neighbours meet it: real processes, real HTTP, nothing mocked.

The tests play provider, tenant, operator and receiver. They know the product through its HTTP surface,
its command line and the scripts in `deploy/local`, and through nothing else. Each answer of the product
is held against `proto/openapi.yaml` on the way.
"""
