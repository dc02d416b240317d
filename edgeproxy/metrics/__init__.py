"""What edgeproxy counts while it serves, and how that is read.

Each process has one `Counts`: plain numbers, which are added to where things happen, without a
library and without a lock, and which outlive every plan.

- The accelerator feeds what it gives again (`RequestTally.remembered`), `App.finish` all other
  requests.
- The front feeds connections and refusals, the upstream what origins answer and how they fail.
- Plans feed failures of plugins, rollouts (`Reloads`) changes of the policy.

Nobody reads them but `snapshot`, when somebody asks: a `Snapshot` of plain data, of which `merged`
makes one where several workers serve. The admin listener gives it as text for Prometheus
(`GET /metrics`, made by `exposition`) and as JSON (`GET /metrics.json`), so whatever shows figures
shows the same ones. Figures since the start only grow; rates are differences of two snapshots. See
`snapshot.py` for the shape, and `summary.py` for what ratios and quantiles are.
"""
