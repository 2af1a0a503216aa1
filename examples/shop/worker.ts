/**
 * The process that keeps the read model. Start as many as you like: each partition is handled by one of them at a time. When it
 * is told to stop, it finishes the batch in hand.
 *
 *   DATABASE_URL=… node --conditions=@effect-message-store/source examples/shop/worker.ts
 */
import { Layer } from "effect"
import { layerDatabase } from "../database.ts"
import { Shop } from "./domain.ts"
import { run } from "./process.ts"
import { ByProduct, handleAll, ShopView } from "./readModel.ts"

run(
  Layer.mergeAll(ByProduct.layerProjector(), ShopView.layerHandler(handleAll)).pipe(
    Layer.provide(ShopView.layer),
    Layer.provide(ByProduct.layer),
    Layer.provide(Shop.layer),
    Layer.provide(layerDatabase())
  )
)
