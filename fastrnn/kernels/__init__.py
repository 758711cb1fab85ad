"""The compiled core. No checks here: every function writes into arrays it is handed."""
