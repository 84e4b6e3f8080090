"""The only room that knows aioslsk: a login, a search, a file on its way. Loaded when it is needed: an extra."""
