//! Another context, which registers issuers and investors while the platform is harmed.
//!
//! The rule this module protects: **an event is handed in until it is taken**, under its one id, as a context does that has it in an
//! outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::harness::registering::integration_service_client::IntegrationServiceClient;
use crate::harness::registering::{IntegrationEvent, PublishIntegrationEventsRequest};
use crate::harness::{Dice, eur, in_time, investor_registered, issuer_registered, uuid};
use crate::market::{connect, is_worth_a_repeat};

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts, and between two registrations.
const PAUSE: Duration = Duration::from_millis(500);

/// The context, as long as it registers.
pub(crate) struct Registrar {
    closing: Arc<AtomicBool>,
    working: JoinHandle<Vec<String>>,
}

impl Registrar {
    /// Registers through these listeners, over and over.
    pub(crate) fn open(listeners: &[String], seed: u64) -> Self {
        let closing = Arc::new(AtomicBool::new(false));
        let (closed, listeners) = (Arc::clone(&closing), listeners.to_vec());
        let working = tokio::spawn(async move {
            let doors: Vec<_> = listeners.iter().map(|address| connect(address)).collect();
            let mut dice = Dice::new(seed);
            let mut promised = Vec::new();
            while !closed.load(Ordering::Relaxed) {
                let registered = [
                    issuer_registered(&uuid(), "Issuer under fire"),
                    investor_registered(&uuid(), "Investor under fire", eur(50, 0)),
                ];
                let events =
                    registered.map(|event| IntegrationEvent { event: Some(event), event_id: uuid() });
                let request = PublishIntegrationEventsRequest { events: events.to_vec() };
                promised.extend(until_taken(&doors, &request, &mut dice).await);
                sleep(dice.between(PAUSE / 10, PAUSE)).await;
            }
            promised
        });
        Self { closing, working }
    }

    /// Lets it finish what it is at. The commands that follow from what it registered.
    pub(crate) async fn close(self) -> Vec<String> {
        self.closing.store(true, Ordering::Relaxed);
        in_time("the registrar comes to an end", self.working).await.expect("it is content")
    }
}

async fn until_taken(
    doors: &[tonic::transport::Channel],
    request: &PublishIntegrationEventsRequest,
    dice: &mut Dice,
) -> Vec<String> {
    loop {
        let mut door = IntegrationServiceClient::new(dice.one_of(doors).clone());
        match timeout(PATIENCE, door.publish_integration_events(request.clone())).await {
            Ok(Ok(answer)) => return answer.into_inner().command_ids,
            Ok(Err(status)) => assert!(is_worth_a_repeat(&status), "{request:?}: {status:?}"),
            Err(_) => {}
        }
        sleep(dice.between(PAUSE / 10, PAUSE)).await;
    }
}
