"""The host's side of a network without a network: a proxy that decides where a sandbox may connect to.

domains   what a network value may say: names, wildcards, literal addresses, ports
rules     what a sandbox may reach, by name
"""
