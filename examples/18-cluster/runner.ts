/**
 * A process that runs flights of the cluster. Start as many as you like, each with a PORT of its own, on one database; the
 * flights are shared out among them, and go to others when one ends.
 *
 *   PORT=34431 DATABASE_URL=… node --conditions=@effect-message-store/source examples/18-cluster/runner.ts
 */
import { NodeClusterSocket, NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { layerDatabase } from "../database.ts"
import { Flights, layerFlight } from "./flights.ts"

const layerRunner = layerFlight.pipe(
  Layer.provide(Flights.layer),
  Layer.provide(NodeClusterSocket.layer()), // its settings come from the environment: HOST, PORT, SHARDS_PER_GROUP, …
  Layer.provide(layerDatabase())
)

NodeRuntime.runMain(Layer.launch(layerRunner))
