//! Orders and the stock they are filled from, as the kernel sees them.
//!
//! The rule this module protects: whatever an order has reserved is confirmed with all the rest of it, or goes back on the
//! shelf. No line is forgotten, and none is reserved twice.

use std::num::NonZeroU32;

use eventsourcing::model::{Aggregate, Known};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A customer's name or a product's: 1 to 64 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(String);

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let well_formed = (1..=64).contains(&text.chars().count()) && !text.contains(char::is_control);
        well_formed
            .then_some(Self(text))
            .ok_or("a name has 1 to 64 characters, none of them a control character")
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// So many pieces of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) product: Name,
    pub(crate) quantity: NonZeroU32,
}

/// What is ordered: 1 to 100 lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Line>", into = "Vec<Line>")]
pub(crate) struct Lines(Vec<Line>);

impl TryFrom<Vec<Line>> for Lines {
    type Error = &'static str;

    fn try_from(lines: Vec<Line>) -> Result<Self, &'static str> {
        (1..=100).contains(&lines.len()).then_some(Self(lines)).ok_or("an order has 1 to 100 items")
    }
}

impl From<Lines> for Vec<Line> {
    fn from(lines: Lines) -> Self {
        lines.0
    }
}

/// What is asked of an order, by its customer or by the processor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum OrderAsk {
    Create { customer: Name, lines: Lines },
    Process,
    Cancel,
    NoteReserved,
    NoteMissing { product: Name },
}

/// What is asked of a stock item. The order is the one to answer to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ItemAsk {
    Deliver { quantity: NonZeroU32 },
    Reserve { order: Uuid, quantity: NonZeroU32 },
    Release { quantity: NonZeroU32 },
}

/// Every command: whom it asks, and for what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    Order { id: Uuid, ask: OrderAsk },
    Item { product: Name, ask: ItemAsk },
}

/// Every event. One of an order that asks something of the stock carries all that the stock has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    OrderCreated { customer: Name, lines: Lines },
    LineRequested { order: Uuid, line: Line },
    OrderConfirmed,
    OrderRejected { missing: Name },
    OrderCancelled,
    LineReturned { line: Line },
    StockDelivered { product: Name, quantity: NonZeroU32 },
    StockReserved { order: Uuid, quantity: NonZeroU32 },
    StockReleased { quantity: NonZeroU32 },
}

/// Why the answer is no.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no such order")]
    NoSuchOrder,
    #[error("the order is {}", .status.name())]
    WrongStatus { status: Status },
    #[error("{quantity} were requested and {available} are available")]
    OutOfStock { quantity: u32, available: u64 },
}

/// An order's way: created, processed line by line, and then one of the last three. Only a processing order waits for a line,
/// and the lines before that one are reserved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) enum Order {
    #[default]
    Absent,
    Created(Lines),
    Processing {
        lines: Lines,
        waits_for: usize,
    },
    Confirmed(Lines),
    Rejected,
    Cancelled,
}

impl Order {
    const fn status(&self) -> Option<Status> {
        match self {
            Self::Absent => None,
            Self::Created(_) => Some(Status::Created),
            Self::Processing { .. } => Some(Status::Processing),
            Self::Confirmed(_) => Some(Status::Confirmed),
            Self::Rejected => Some(Status::Rejected),
            Self::Cancelled => Some(Status::Cancelled),
        }
    }
}

/// An order's status, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Created,
    Processing,
    Confirmed,
    Rejected,
    Cancelled,
}

impl Status {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Processing => "PROCESSING",
            Self::Confirmed => "CONFIRMED",
            Self::Rejected => "REJECTED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// Asks for a line, or confirms the order where there are no more.
fn ask_for(order: Uuid, line: Option<&Line>) -> Vec<Event> {
    vec![line.map_or(Event::OrderConfirmed, |line| Event::LineRequested { order, line: line.clone() })]
}

/// An order's end, and with it everything that it had reserved.
fn give_back<'a>(end: Event, reserved: impl IntoIterator<Item = &'a Line>) -> Vec<Event> {
    let returned = reserved.into_iter().map(|line| Event::LineReturned { line: line.clone() });
    std::iter::once(end).chain(returned).collect()
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = (Uuid, OrderAsk);
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, (order, ask): &Self::Command, _: &Known) -> Result<Vec<Event>, Refusal> {
        let Some(status) = self.status() else {
            let OrderAsk::Create { customer, lines } = ask.clone() else { return Err(Refusal::NoSuchOrder) };
            return Ok(vec![Event::OrderCreated { customer, lines }]);
        };
        Ok(match (self, ask) {
            (Self::Created(lines), OrderAsk::Process) => ask_for(*order, lines.0.first()),
            (Self::Created(_), OrderAsk::Cancel) => vec![Event::OrderCancelled],
            (Self::Processing { lines, waits_for }, OrderAsk::NoteReserved) => {
                ask_for(*order, lines.0.get(waits_for.saturating_add(1)))
            }
            (Self::Processing { lines, waits_for }, OrderAsk::NoteMissing { product }) => {
                give_back(Event::OrderRejected { missing: product.clone() }, lines.0.iter().take(*waits_for))
            }
            (Self::Confirmed(lines), OrderAsk::Cancel) => give_back(Event::OrderCancelled, &lines.0),
            // What is asked for is so already.
            (Self::Processing { .. } | Self::Confirmed(_), OrderAsk::Process)
            | (Self::Cancelled, OrderAsk::Cancel) => Vec::new(),
            (_, _) => return Err(Refusal::WrongStatus { status }),
        })
    }

    fn evolve(self, event: &Event) -> Self {
        match (self, event) {
            (_, Event::OrderCreated { lines, .. }) => Self::Created(lines.clone()),
            (Self::Created(lines), Event::LineRequested { .. }) => Self::Processing { lines, waits_for: 0 },
            (Self::Processing { lines, waits_for }, Event::LineRequested { .. }) => {
                Self::Processing { lines, waits_for: waits_for.saturating_add(1) }
            }
            (Self::Processing { lines, .. }, Event::OrderConfirmed) => Self::Confirmed(lines),
            (_, Event::OrderRejected { .. }) => Self::Rejected,
            (_, Event::OrderCancelled) => Self::Cancelled,
            // What goes back changes the shelf, and not the order.
            (order, _) => order,
        }
    }
}

/// A product on the shelf: how many pieces nobody has reserved.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Item {
    available: u64,
}

impl Item {
    /// A product is known by its name, and the kernel knows aggregates by UUIDs: this is the name's.
    pub(crate) fn id(product: &Name) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("orders/item/{}", product.0).as_bytes())
    }
}

impl Aggregate for Item {
    const TYPE: &'static str = "item";
    type Command = (Name, ItemAsk);
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, (product, ask): &Self::Command, _: &Known) -> Result<Vec<Event>, Refusal> {
        Ok(vec![match *ask {
            ItemAsk::Deliver { quantity } => Event::StockDelivered { product: product.clone(), quantity },
            ItemAsk::Reserve { quantity, .. } if u64::from(quantity.get()) > self.available => {
                let (quantity, available) = (quantity.get(), self.available);
                return Err(Refusal::OutOfStock { quantity, available });
            }
            ItemAsk::Reserve { order, quantity } => Event::StockReserved { order, quantity },
            ItemAsk::Release { quantity } => Event::StockReleased { quantity },
        }])
    }

    fn evolve(self, event: &Event) -> Self {
        Self { available: self.available.saturating_add_signed(shelf_change(event)) }
    }
}

/// What an event adds to what nobody has reserved.
pub(crate) fn shelf_change(event: &Event) -> i64 {
    match event {
        Event::StockDelivered { quantity, .. } | Event::StockReleased { quantity } => quantity.get().into(),
        Event::StockReserved { quantity, .. } => -i64::from(quantity.get()),
        Event::OrderCreated { .. }
        | Event::LineRequested { .. }
        | Event::OrderConfirmed
        | Event::OrderRejected { .. }
        | Event::OrderCancelled
        | Event::LineReturned { .. } => 0,
    }
}
