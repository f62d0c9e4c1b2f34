//! `registering.v1.IntegrationService`: the door for contexts that have no access to the bus.
//!
//! The rule this module protects: all events of a call are parsed before any is stored, and when the call returns all of
//! them are.

use futures_util::future::join_all;
use tonic::{Request, Response, Status};

use domain::financing::Financing;
use domain::integration::{ACTOR, IntegrationEvent, InvestorRegistered, IssuerRegistered};
use eventsourcing::command::Envelope;
use eventsourcing::environment::Environment;
use eventsourcing::listener::Intake;
use uuid::Uuid;

use super::call::{Call, Calls};
use super::ids::of_event;
use super::parse::{Fields, traceparent};
use super::proto::registering::v1;
use super::proto::registering::v1::integration_event::Event;
use super::proto::registering::v1::integration_service_server::IntegrationService;
use super::status::Failure;

/// The most events of one call.
const MOST_EVENTS: usize = 1000;

/// The service, in front of an intake.
#[derive(Clone)]
pub(crate) struct IntegrationApi<E> {
    intake: Intake<E>,
    calls: Calls<E>,
}

/// A parsed event and the id that its sender gave it.
type Parsed = (Option<Uuid>, IntegrationEvent);

fn parse(fields: &mut Fields, event: v1::IntegrationEvent) -> Option<Parsed> {
    let event_id = fields.optional_id("event_id", &event.event_id);
    let parsed = match event.event {
        None => {
            fields.violation("event", "is required");
            None
        }
        Some(Event::IssuerRegistered(event)) => fields.inside("issuer_registered", |fields| {
            let issuer_id = fields.id("issuer_id", &event.issuer_id);
            let (issuer_id, name) = issuer_id.zip(fields.name("name", event.name))?;
            Some(IntegrationEvent::IssuerRegistered(IssuerRegistered { issuer_id, name }))
        }),
        Some(Event::InvestorRegistered(event)) => fields.inside("investor_registered", |fields| {
            let investor_id = fields.id("investor_id", &event.investor_id);
            let name = fields.name("name", event.name);
            let balance = fields.money("balance", event.balance.as_ref());
            let ((investor_id, name), balance) = investor_id.zip(name).zip(balance)?;
            Some(IntegrationEvent::InvestorRegistered(InvestorRegistered { investor_id, name, balance }))
        }),
    };
    parsed.map(|parsed| (event_id, parsed))
}

/// All events of a call, or all that is wrong with them.
pub(crate) fn parse_all(events: Vec<v1::IntegrationEvent>) -> Result<Vec<Parsed>, Failure> {
    let mut fields = Fields::default();
    if events.is_empty() {
        fields.violation("events", "must not be empty");
    } else if events.len() > MOST_EVENTS {
        fields.violation("events", format!("must be at most {MOST_EVENTS}"));
        return fields.finish(None);
    }
    let parsed = events
        .into_iter()
        .enumerate()
        .map(|(index, event)| fields.inside(&format!("events[{index}]"), |fields| parse(fields, event)));
    // All of them, also behind one that is malformed.
    let parsed: Vec<Option<Parsed>> = parsed.collect();
    fields.finish(parsed.into_iter().collect())
}

impl<E: Environment> IntegrationApi<E> {
    /// The service.
    pub(crate) const fn new(intake: Intake<E>, calls: Calls<E>) -> Self {
        Self { intake, calls }
    }

    async fn hand_in(
        &self,
        (event_id, event): Parsed,
        traceparent: Option<String>,
    ) -> Result<String, Failure> {
        // Wrapped before it has its id: what it says as JSON is part of the id that it gets.
        let mut envelope = Envelope::first::<Financing>(Uuid::nil(), ACTOR.to_owned(), &event.command())
            .map_err(Failure::Unwritable)?;
        let content = envelope.command.get().as_bytes();
        let command_id = of_event(&self.calls.environment, event_id, content);
        (envelope.command_id, envelope.correlation_id, envelope.causation_id) =
            (command_id, command_id, command_id);
        envelope.traceparent = traceparent;
        self.intake.submit(&envelope).await.map_err(Failure::NotQueued)?;
        Ok(command_id.to_string())
    }
}

#[tonic::async_trait]
impl<E: Environment> IntegrationService for IntegrationApi<E> {
    async fn publish_integration_events(
        &self,
        request: Request<v1::PublishIntegrationEventsRequest>,
    ) -> Result<Response<v1::PublishIntegrationEventsResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let call = Call::short("PublishIntegrationEvents", &metadata);
        let body = async {
            let events = parse_all(message.events)?;
            let mut handing = self.calls.begin(call, None, traceparent(&metadata));
            let traceparent = handing.traceparent();
            // Polled in order, so that events of one partition are queued in the order of the request.
            let stored =
                join_all(events.into_iter().map(|event| self.hand_in(event, traceparent.clone()))).await;
            let command_ids = stored.into_iter().collect::<Result<_, _>>()?;
            handing.succeeded();
            Ok(v1::PublishIntegrationEventsResponse { command_ids })
        };
        self.calls.answer(call, body).await
    }
}
