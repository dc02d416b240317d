"""Where in the world a client is: country, continent, region, and the network it comes from."""
