"""ASGI middleware and the HTTP protocol, which every request passes before its route."""
