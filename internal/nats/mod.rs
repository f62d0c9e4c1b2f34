//! The distributed adapters of the command queue and of the event bus: NATS JetStream.
