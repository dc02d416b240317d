using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),
    (name = "origin", external = (address = "@ORIGIN@", http = ())),
  ],
  sockets = [(name = "http", address = "127.0.0.1:@PORT@", http = (), service = "edge")],
);

const edge :Workerd.Worker = (
  modules = [
    (name = "edge", esModule = embed "workerd.js"),
    (name = "countries.json", json = embed "countries.json"),
  ],
  bindings = [(name = "ORIGIN", service = "origin")],
  compatibilityDate = "2024-01-01",
);
