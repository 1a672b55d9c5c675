// Code of a client as its author writes it. That it compiles shows that the generated types are exact.
import type { components, operations, paths } from "./contract";

type Schemas = components["schemas"];
type Answer<Path extends keyof paths> = paths[Path] extends {
  get: { responses: { 200: { content: { "application/json": infer Body } } } };
}
  ? Body
  : never;
type Item<Path extends keyof paths> = Answer<Path> extends { data: (infer One)[]; next_cursor: string | null } ? One : never;

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

// Every list holds items of its own schema.
same<Item<"/v1/tenants">, Schemas["Tenant"]>(true);
same<Item<"/v1/tenants/{tenant_id}/api-keys">, Schemas["ApiKey"]>(true);
same<Item<"/v1/sources">, Schemas["Source"]>(true);
same<Item<"/v1/rejected-requests">, Schemas["RejectedRequest"]>(true);
same<Item<"/v1/event-types">, Schemas["CatalogueEntry"]>(true);
same<Item<"/v1/subscriptions">, Schemas["Subscription"]>(true);
same<Item<"/v1/events">, Schemas["Event"]>(true);
same<Item<"/v1/events/{event_id}/explain">, Schemas["Explained"]>(true);
same<Item<"/v1/deliveries">, Schemas["Delivery"]>(true);
same<Item<"/v1/dead-letters">, Schemas["DeadLetter"]>(true);
same<Item<"/v1/dead-letters/groups">, Schemas["DeadLetterGroup"]>(true);
same<Item<"/v1/replays">, Schemas["Replay"]>(true);
same<Item<"/v1/audit-log">, Schemas["AuditEntry"]>(true);

// Every problem has the fields of RFC 9457; a refused field is named.
type Refused = operations["createSubscription"]["responses"][422]["content"]["application/problem+json"];
type Missing = operations["getTenant"]["responses"][404]["content"]["application/problem+json"];
export const refusal = (refused: Refused): string => refused.errors.map((error) => error.pointer).join();
export const absence = (missing: Missing): string => `${missing.status} ${missing.title}`;

export const late = (delivery: Schemas["DeliveryWithAttempts"]): boolean =>
  delivery.state === "held" && delivery.held_reason === "retry" && delivery.attempts.every((made) => made.generation === 1);

export const wanted: Schemas["SubscriptionCreate"] = {
  url: "https://example.com/hooks",
  event_types: ["invoice.*"],
  rate_limit: { per_second: 5 },
};

// @ts-expect-error No state has this name.
export const unknown: Schemas["DeliveryState"] = "lost";
