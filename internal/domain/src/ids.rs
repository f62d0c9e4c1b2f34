//! Who and what: a type for every kind of id.
//!
//! The rule this module protects: the id of one kind cannot be handed in where another kind is meant. The
//! compiler finds what a string would hide.

use std::fmt;

use eventsourcing::model::{Aggregate, AggregateRef};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::investor::Investor;
use crate::invoice::Invoice;
use crate::issuer::Issuer;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with this UUID.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID itself.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A business that sells its unpaid invoices. Given by the Registering context.
    IssuerId
}
id! {
    /// Somebody who finances invoices. Given by the Registering context, which gives a legal party that is
    /// both the same UUID in both roles.
    InvestorId
}
id! {
    /// An invoice on sale. Made by the listener.
    InvoiceId
}
id! {
    /// One bid of one investor on one invoice. Made by the listener, never reused.
    BidId
}

impl IssuerId {
    /// The aggregate with this id.
    #[must_use]
    pub const fn aggregate(self) -> AggregateRef {
        AggregateRef::new(Issuer::TYPE, self.0)
    }

    /// Whether the investor is the same legal party.
    #[must_use]
    pub fn is_same_party_as(self, investor: InvestorId) -> bool {
        self.0 == investor.0
    }
}

impl InvestorId {
    /// The aggregate with this id.
    #[must_use]
    pub const fn aggregate(self) -> AggregateRef {
        AggregateRef::new(Investor::TYPE, self.0)
    }
}

impl InvoiceId {
    /// The aggregate with this id.
    #[must_use]
    pub const fn aggregate(self) -> AggregateRef {
        AggregateRef::new(Invoice::TYPE, self.0)
    }
}
