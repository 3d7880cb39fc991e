"""Policies and experiments over HTTP: an application that knows Ray only where it is deployed."""
