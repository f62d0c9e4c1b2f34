//! The shop: the domain as the kernel's loops see it, the order processor, and what is shown.
//!
//! The rule this module protects: what follows from a fact, and what is shown of it, follows from that fact alone.

use eventsourcing::model::{
    Aggregate as _, AggregateRef, DecodeError, EncodedEvent, EncodedSnapshot, Entry, Known, Model, Policies,
    Projection,
};
use eventsourcing::ports::{Column, ColumnType, Index, ReadModelSchema, RowChange, Table, Value};
use eventsourcing::record::Record;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::{Command, Event, Item, ItemAsk, Line, Order, OrderAsk, Refusal, Status, shelf_change};

/// The order processor: it asks the stock for one line after the other, tells the order what came of it, and puts back what an
/// order gave up.
pub(crate) struct OrderProcessor;

impl Policies<Shop> for OrderProcessor {
    fn react(&self, entry: &Entry<Shop>) -> Option<(&'static str, Command)> {
        Some(match entry {
            Entry::Fact(Event::LineRequested { order, line: Line { product, quantity } }) => {
                let ask = ItemAsk::Reserve { order: *order, quantity: *quantity };
                ("reserve-line", Command::Item { product: product.clone(), ask })
            }
            Entry::Fact(Event::StockReserved { order, .. }) => {
                ("note-reserved", Command::Order { id: *order, ask: OrderAsk::NoteReserved })
            }
            Entry::Refused {
                command: Command::Item { product, ask: ItemAsk::Reserve { order, .. } },
                ..
            } => {
                let ask = OrderAsk::NoteMissing { product: product.clone() };
                ("note-missing", Command::Order { id: *order, ask })
            }
            Entry::Fact(Event::LineReturned { line: Line { product, quantity } }) => {
                let ask = ItemAsk::Release { quantity: *quantity };
                ("release-line", Command::Item { product: product.clone(), ask })
            }
            Entry::Fact(_)
            | Entry::Refused { .. }
            | Entry::Unchanged { .. }
            | Entry::Dead
            | Entry::Discarded => return None,
        })
    }
}

/// The state of an order or of a stock item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum State {
    Order(Order),
    Item(Item),
}

/// The bounded context: what the kernel's loops are generic over.
pub(crate) struct Shop;

impl Model for Shop {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;
    const CONTEXT: &'static str = "shop";

    fn target(command: &Command) -> AggregateRef {
        match command {
            Command::Order { id, .. } => AggregateRef::new(Order::TYPE, *id),
            Command::Item { product, .. } => AggregateRef::new(Item::TYPE, Item::id(product)),
        }
    }

    fn method(command: &Command) -> &'static str {
        match command {
            Command::Order { ask: OrderAsk::Create { .. }, .. } => "CreateOrder",
            Command::Order { ask: OrderAsk::Process, .. } => "ProcessOrder",
            Command::Order { ask: OrderAsk::Cancel, .. } => "CancelOrder",
            Command::Order { ask: OrderAsk::NoteReserved, .. } => "NoteReserved",
            Command::Order { ask: OrderAsk::NoteMissing { .. }, .. } => "NoteMissing",
            Command::Item { ask: ItemAsk::Deliver { .. }, .. } => "DeliverStock",
            Command::Item { ask: ItemAsk::Reserve { .. }, .. } => "ReserveStock",
            Command::Item { ask: ItemAsk::Release { .. }, .. } => "ReleaseStock",
        }
    }

    fn references(_: &Command) -> Vec<AggregateRef> {
        Vec::new()
    }

    fn initial(target: &AggregateRef) -> Option<State> {
        match target.kind.as_ref() {
            Order::TYPE => Some(State::Order(Order::default())),
            Item::TYPE => Some(State::Item(Item::default())),
            _ => None,
        }
    }

    fn decide(state: &State, command: &Command, known: &Known) -> Result<Vec<Event>, Refusal> {
        // The kernel loads what `target` names: the state is of the aggregate that is asked.
        match (state, command.clone()) {
            (State::Order(order), Command::Order { id, ask }) => order.decide(&(id, ask), known),
            (State::Item(item), Command::Item { product, ask }) => item.decide(&(product, ask), known),
            (State::Order(_), Command::Item { .. }) | (State::Item(_), Command::Order { .. }) => {
                Ok(Vec::new())
            }
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        match state {
            State::Order(order) => State::Order(order.evolve(event)),
            State::Item(item) => State::Item(item.evolve(event)),
        }
    }

    fn reason(refusal: &Refusal) -> &'static str {
        match refusal {
            Refusal::NoSuchOrder => "NO_SUCH_ORDER",
            Refusal::WrongStatus { .. } => "WRONG_STATUS",
            Refusal::OutOfStock { .. } => "OUT_OF_STOCK",
        }
    }

    fn encode_event(event: &Event) -> Result<EncodedEvent, DecodeError> {
        let event_type = match event {
            Event::OrderCreated { .. } => "OrderCreated",
            Event::LineRequested { .. } => "LineRequested",
            Event::OrderConfirmed => "OrderConfirmed",
            Event::OrderRejected { .. } => "OrderRejected",
            Event::OrderCancelled => "OrderCancelled",
            Event::LineReturned { .. } => "LineReturned",
            Event::StockDelivered { .. } => "StockDelivered",
            Event::StockReserved { .. } => "StockReserved",
            Event::StockReleased { .. } => "StockReleased",
        };
        let data = serde_json::to_string(event).map_err(|error| DecodeError::malformed(event_type, error))?;
        Ok(EncodedEvent { event_type, schema: 1, data })
    }

    fn decode_event(event_type: &str, _schema: u16, data: &str) -> Result<Event, DecodeError> {
        serde_json::from_str(data).map_err(|error| DecodeError::malformed(event_type, error))
    }

    fn encode_snapshot(state: &State) -> Result<EncodedSnapshot, DecodeError> {
        let data = serde_json::to_string(state).map_err(|error| DecodeError::malformed("snapshot", error))?;
        Ok(EncodedSnapshot { schema: 1, data })
    }

    fn decode_snapshot(_: &AggregateRef, snapshot: &EncodedSnapshot) -> Option<State> {
        (snapshot.schema == 1).then(|| serde_json::from_str(&snapshot.data).ok()).flatten()
    }
}

/// Orders, by their id. The items are JSON, as they were ordered; the missing product is that of a rejected order.
pub(crate) const ORDERS: Table = Table {
    name: "orders",
    columns: &[
        Column { name: "customer", kind: ColumnType::Text, index: Index::None },
        Column { name: "items", kind: ColumnType::Text, index: Index::None },
        Column { name: "status", kind: ColumnType::Text, index: Index::All },
        Column { name: "missing", kind: ColumnType::Text, index: Index::None },
    ],
};

/// Products, by [`Item::id`], and how many pieces of them are free and promised.
pub(crate) const STOCK: Table = Table {
    name: "stock",
    columns: &[
        Column { name: "available", kind: ColumnType::Integer, index: Index::None },
        Column { name: "reserved", kind: ColumnType::Integer, index: Index::None },
    ],
};

/// What is shown.
pub(crate) const SCHEMA: ReadModelSchema = ReadModelSchema { version: 1, tables: &[ORDERS, STOCK] };

/// The read model.
pub(crate) struct Shown;

impl Projection<Shop> for Shown {
    fn project(&self, record: &Record, entry: &Entry<Shop>) -> Vec<RowChange> {
        let Entry::Fact(event) = entry else { return Vec::new() };
        let key = record.aggregate.id;
        let is = |status: Status| ("status", Value::Text(status.name().to_owned()));
        let order = |set| vec![RowChange { table: ORDERS.name, key, set, add: Vec::new() }];
        let stock = |add| vec![RowChange { table: STOCK.name, key, set: Vec::new(), add }];
        let change = shelf_change(event);
        match event {
            Event::OrderCreated { customer, lines } => order(vec![
                ("customer", Value::Text(customer.clone().into())),
                ("items", Value::Text(json!(lines).to_string())),
                is(Status::Created),
            ]),
            Event::LineRequested { .. } => order(vec![is(Status::Processing)]),
            Event::OrderConfirmed => order(vec![is(Status::Confirmed)]),
            Event::OrderRejected { missing } => {
                order(vec![is(Status::Rejected), ("missing", Value::Text(missing.clone().into()))])
            }
            Event::OrderCancelled => order(vec![is(Status::Cancelled)]),
            Event::LineReturned { .. } => Vec::new(),
            Event::StockDelivered { .. } => stock(vec![("available", change)]),
            Event::StockReserved { .. } | Event::StockReleased { .. } => {
                stock(vec![("available", change), ("reserved", -change)])
            }
        }
    }
}
