"""The host's side of a network without a network: a proxy that decides where a sandbox may connect to.

opening       `gates`: from the settings to what makes a gate for a network
equipping     a gate with all that it needs of this machine
core          `Gate`: serves one sandbox's connections

rules         PURE  what a sandbox may reach, by name
domains       PURE  one entry of a list of domains
ceiling       PURE  what a model may ask for
addresses     which addresses are of the internet, and which are this host's own
targets       PURE  the host and port that a program asks for
registries    what network "packages" leads to
secrets       what is said to hosts for a sandbox that never learns it
limits        how much, how fast and how long

conversation  the requests of one connection from inside
exchange      one request and its response
tunnels       what CONNECT opens: relayed, read, or intercepted
hello         PURE  the name in the greeting of a TLS client
masking       PURE  secrets that come back are made unreadable
messages      HTTP/1.1 over a stream
answers       what a program is told that does not get through
denials       what a sandbox was denied

outbound      the ways out
reaching      names become addresses, which are looked at and connected to
resolving     how names are looked up
host_proxy    the proxy that this machine itself has to use
authority     a certificate authority of one gate, for the hosts of its secrets
relay         bytes both ways
streams       connections from inside in the vocabulary of anyio
client        the interface to whoever carries a connection
"""
