"""How bytes come and go: uvicorn's connections, with the bounds that it leaves out."""
