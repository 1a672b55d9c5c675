//! The services, the record and the broker as one: real PostgreSQL, real RabbitMQ, HTTP in and out.

mod broker;
mod record;
mod road;
