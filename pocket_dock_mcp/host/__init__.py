"""How this machine itself gets to the network and to its packages, as its files and its environment say.

apt      the archives of Debian and Ubuntu packages
netrc    names and passwords for hosts
network  proxies, and the authorities that it trusts
npm      where npm gets its packages
pip      where pip gets its packages
texts    small files, read whole
"""
