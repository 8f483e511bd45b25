"""The processes of the gateway, one package an actor, in the order in which data moves through them."""
