//! `financing.v1.CommandService`.
//!
//! The rule this module protects: a client is told of an outcome only when it is one, and of an acceptance only when the
//! command is stored; what is not known is called pending or unavailable.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use domain::financing::{Command, Financing};
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{BidOnInvoice, InvestorCommand};
use domain::invoice::{ApproveFinancing, InvoiceCommand, ReverseFinancing, SellInvoice};
use eventsourcing::command::Envelope;
use eventsourcing::environment::{Environment, within};
use eventsourcing::listener::{Intake, SubmitError};
use eventsourcing::outcome::{Outcome, Reply, Verdict};
use eventsourcing::partition::LogPosition;

use super::call::{Call, Calls};
use super::ids::{Kind, id};
use super::parse::{Fields, traceparent};
use super::proto::financing::v1;
use super::proto::financing::v1::command_service_server::CommandService;
use super::status::{Failure, ReplyIds};

/// How long a stopping server tries to find out whether a command is stored.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The service, in front of an intake.
#[derive(Clone)]
pub(crate) struct CommandApi<E> {
    intake: Intake<E>,
    calls: Calls<E>,
}

/// What every request may carry beside its command.
struct Asked {
    request_id: Option<Uuid>,
    wait: Option<Duration>,
    actor: String,
    traceparent: Option<String>,
}

/// What every reply carries beside its ids.
struct Accepted {
    command_id: String,
    state: i32,
    token: String,
}

impl Accepted {
    fn new(command_id: Uuid, state: v1::CommandState, token: Option<LogPosition>) -> Self {
        let token = token.map(|token| token.to_string()).unwrap_or_default();
        Self { command_id: command_id.to_string(), state: state.into(), token }
    }
}

fn asked(
    fields: &mut Fields,
    metadata: &MetadataMap,
    request_id: &str,
    wait: Option<&prost_types::Duration>,
) -> Asked {
    Asked {
        request_id: fields.optional_id("request_id", request_id),
        wait: fields.wait("wait", wait),
        actor: fields.actor(metadata),
        traceparent: traceparent(metadata),
    }
}

impl<E: Environment> CommandApi<E> {
    /// The service.
    pub(crate) const fn new(intake: Intake<E>, calls: Calls<E>) -> Self {
        Self { intake, calls }
    }

    fn call(method: &'static str, metadata: &MetadataMap, wait: Option<&prost_types::Duration>) -> Call {
        if wait.is_some() { Call::long(method, metadata, wait) } else { Call::short(method, metadata) }
    }

    fn id(&self, asked: &Asked, kind: Kind) -> Uuid {
        id(&self.calls.environment, asked.request_id, kind)
    }

    /// Hands a command in, and waits for its outcome where that was asked for. A refusal carries the other ids beside the
    /// command's own.
    async fn hand_in(
        &self,
        call: Call,
        asked: Asked,
        command: Command,
        others: ReplyIds,
    ) -> Result<Accepted, Failure> {
        let command_id = self.id(&asked, Kind::Command);
        let mut envelope =
            Envelope::first::<Financing>(command_id, asked.actor, &command).map_err(Failure::Unwritable)?;
        let mut handing = self.calls.begin(call, Some(command_id), asked.traceparent);
        envelope.traceparent = handing.traceparent();
        let Some(wait) = asked.wait else {
            self.intake.submit(&envelope).await.map_err(Failure::NotQueued)?;
            handing.succeeded();
            return Ok(Accepted::new(command_id, v1::CommandState::Unspecified, None));
        };
        // In a box: most calls do not wait, and need no room for it.
        let reply = Box::pin(self.until_stopped(envelope, call.budget.wait(wait))).await?;
        handing.succeeded();
        let ids = || [vec![("command_id", command_id)], others].concat();
        match reply {
            None => Ok(Accepted::new(command_id, v1::CommandState::Pending, None)),
            // The other ids are those of a request that was not done: they name nothing.
            Some(Reply::Reused { .. }) => Err(Failure::Reused { ids: vec![("command_id", command_id)] }),
            Some(Reply::Outcome(Outcome { position, verdict, .. })) => match verdict {
                Verdict::Applied => Ok(Accepted::new(command_id, v1::CommandState::Applied, Some(position))),
                Verdict::Unchanged => {
                    Ok(Accepted::new(command_id, v1::CommandState::Unchanged, Some(position)))
                }
                Verdict::Refused { reason, message } => {
                    Err(Failure::Refused { reason, message, ids: ids(), token: position })
                }
                Verdict::Dead { reason, message: _ } => {
                    Err(Failure::Dead { reason, ids: ids(), token: position })
                }
            },
        }
    }

    /// Waits for the outcome, but does not hold up a server that stops. Then the command is handed in once more, with
    /// the same ids, which is how one learns that it is stored.
    async fn until_stopped(&self, envelope: Envelope, wait: Duration) -> Result<Option<Reply>, Failure> {
        let again = envelope.clone();
        let reply = {
            let waiting = pin!(self.intake.submit_and_wait(envelope, wait));
            let stopping = pin!(self.calls.stop.given());
            match select(waiting, stopping).await {
                Either::Left((reply, _)) => Some(reply),
                Either::Right(((), _)) => None,
            }
        };
        match reply {
            Some(reply) => reply.map_err(Failure::NotQueued),
            None => match within(&self.calls.environment, LAST_WORD, self.intake.submit(&again)).await {
                Some(Ok(())) => Ok(None),
                Some(Err(error @ SubmitError::Unqueueable(_))) => Err(Failure::NotQueued(error)),
                Some(Err(SubmitError::Overloaded | SubmitError::Unavailable)) | None => {
                    Err(Failure::Stopping)
                }
            },
        }
    }
}

#[tonic::async_trait]
impl<E: Environment> CommandService for CommandApi<E> {
    async fn sell_invoice(
        &self,
        request: Request<v1::SellInvoiceRequest>,
    ) -> Result<Response<v1::SellInvoiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let call = Self::call("SellInvoice", &metadata, message.wait.as_ref());
        let body = async {
            let mut fields = Fields::default();
            let issuer_id: Option<IssuerId> = fields.id("issuer_id", &message.issuer_id);
            let asking_price = fields.amount("asking_price", message.asking_price.as_ref());
            let asked = asked(&mut fields, &metadata, &message.request_id, message.wait.as_ref());
            let (issuer_id, asking_price) = fields.finish(issuer_id.zip(asking_price))?;
            let invoice_id = InvoiceId::new(self.id(&asked, Kind::Invoice));
            let command = InvoiceCommand::SellInvoice(SellInvoice { invoice_id, issuer_id, asking_price });
            let ids = vec![("invoice_id", invoice_id.as_uuid()), ("issuer_id", issuer_id.as_uuid())];
            let Accepted { command_id, state, token } =
                self.hand_in(call, asked, command.into(), ids).await?;
            Ok(v1::SellInvoiceResponse { invoice_id: invoice_id.to_string(), command_id, state, token })
        };
        self.calls.answer(call, body).await
    }

    async fn bid_on_invoice(
        &self,
        request: Request<v1::BidOnInvoiceRequest>,
    ) -> Result<Response<v1::BidOnInvoiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let call = Self::call("BidOnInvoice", &metadata, message.wait.as_ref());
        let body = async {
            let mut fields = Fields::default();
            let investor_id: Option<InvestorId> = fields.id("investor_id", &message.investor_id);
            let invoice_id: Option<InvoiceId> = fields.id("invoice_id", &message.invoice_id);
            let amount = fields.amount("amount", message.amount.as_ref());
            let asked = asked(&mut fields, &metadata, &message.request_id, message.wait.as_ref());
            let parsed = investor_id.zip(invoice_id).zip(amount);
            let ((investor_id, invoice_id), amount) = fields.finish(parsed)?;
            let bid_id = BidId::new(self.id(&asked, Kind::Bid));
            let command =
                InvestorCommand::BidOnInvoice(BidOnInvoice { investor_id, bid_id, invoice_id, amount });
            let ids = vec![
                ("bid_id", bid_id.as_uuid()),
                ("investor_id", investor_id.as_uuid()),
                ("invoice_id", invoice_id.as_uuid()),
            ];
            let Accepted { command_id, state, token } =
                self.hand_in(call, asked, command.into(), ids).await?;
            Ok(v1::BidOnInvoiceResponse { bid_id: bid_id.to_string(), command_id, state, token })
        };
        self.calls.answer(call, body).await
    }

    async fn approve_financing(
        &self,
        request: Request<v1::ApproveFinancingRequest>,
    ) -> Result<Response<v1::ApproveFinancingResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let call = Self::call("ApproveFinancing", &metadata, message.wait.as_ref());
        let body = async {
            let mut fields = Fields::default();
            let invoice_id = fields.id("invoice_id", &message.invoice_id);
            let asked = asked(&mut fields, &metadata, &message.request_id, message.wait.as_ref());
            let invoice_id: InvoiceId = fields.finish(invoice_id)?;
            let ids = vec![("invoice_id", invoice_id.as_uuid())];
            let command = InvoiceCommand::ApproveFinancing(ApproveFinancing { invoice_id });
            let Accepted { command_id, state, token } =
                self.hand_in(call, asked, command.into(), ids).await?;
            Ok(v1::ApproveFinancingResponse { command_id, state, token })
        };
        self.calls.answer(call, body).await
    }

    async fn reverse_financing(
        &self,
        request: Request<v1::ReverseFinancingRequest>,
    ) -> Result<Response<v1::ReverseFinancingResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let call = Self::call("ReverseFinancing", &metadata, message.wait.as_ref());
        let body = async {
            let mut fields = Fields::default();
            let invoice_id = fields.id("invoice_id", &message.invoice_id);
            let asked = asked(&mut fields, &metadata, &message.request_id, message.wait.as_ref());
            let invoice_id: InvoiceId = fields.finish(invoice_id)?;
            let ids = vec![("invoice_id", invoice_id.as_uuid())];
            let command = InvoiceCommand::ReverseFinancing(ReverseFinancing { invoice_id });
            let Accepted { command_id, state, token } =
                self.hand_in(call, asked, command.into(), ids).await?;
            Ok(v1::ReverseFinancingResponse { command_id, state, token })
        };
        self.calls.answer(call, body).await
    }
}
