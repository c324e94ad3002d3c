"""Tokens of an OpenID Connect issuer (Entra ID among them) in place of keys."""
