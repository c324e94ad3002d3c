"""ModelWebService: models and an entry script, served at one address."""
