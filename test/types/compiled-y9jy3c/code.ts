import { type DateTime, Schema } from "effect"
      import { MessageStore, type Serializer } from "effect-message-store"
      const schema = Schema.Struct({ key: Schema.String, at: Schema.DateTimeUtc })
      declare const serializer: Serializer.MessageSerializer<{ readonly key: string; readonly at: DateTime.Utc }>
      export class Store extends MessageStore.Service<Store>()("Store", { name: "store", serializer }) {}
      export { schema, serializer }