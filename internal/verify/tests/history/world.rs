//! Writes histories: what clients do, and what the saga makes of it, in whatever order its steps come.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::stored::Owned;

/// Money of euros, by its cents.
pub(crate) fn euros(cents: i64) -> String {
    money(cents, "EUR")
}

/// Money of a currency with hundredths.
pub(crate) fn money(cents: i64, currency: &str) -> String {
    let (units, nanos) = (cents / 100, cents % 100 * 10_000_000);
    format!(r#"{{"currency_code":"{currency}","units":{units},"nanos":{nanos}}}"#)
}

#[derive(Clone, Default)]
struct Account {
    currency: &'static str,
    available: i64,
    /// What each bid has left.
    bids: BTreeMap<Uuid, i64>,
}

#[derive(Clone)]
struct Sale {
    issuer: Uuid,
    asking: i64,
    winner: Option<Placed>,
    ended: bool,
}

#[derive(Clone)]
struct Placed {
    bid: Uuid,
    investor: Uuid,
    invoice: Uuid,
    amount: i64,
    currency: &'static str,
}

impl Placed {
    fn json(&self) -> String {
        let Self { bid, investor, invoice, amount, currency } = self;
        let amount = money(*amount, currency);
        format!(r#""invoice_id":"{invoice}","bid_id":"{bid}","investor_id":"{investor}","amount":{amount}"#)
    }
}

#[derive(Clone)]
enum Next {
    Process(Placed),
    Move(&'static str, Placed, i64),
}

impl Next {
    fn target(&self) -> (&'static str, Uuid) {
        match self {
            Self::Process(placed) => ("invoice", placed.invoice),
            Self::Move(_, placed, _) => ("investor", placed.investor),
        }
    }
}

/// A command of the saga that nobody has worked off yet.
#[derive(Clone)]
pub(crate) struct Pending {
    policy: &'static str,
    cause: Uuid,
    correlation: Uuid,
    next: Next,
}

/// A platform in miniature.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) partitions: u16,
    pub(crate) log: Vec<Owned>,
    pub(crate) pending: Vec<Pending>,
    /// Steps that died: the dead letter, and the step.
    pub(crate) dead: Vec<(Uuid, Pending)>,
    ids: u128,
    now: u64,
    names: BTreeMap<Uuid, String>,
    accounts: BTreeMap<Uuid, Account>,
    sales: BTreeMap<Uuid, Sale>,
    versions: BTreeMap<(String, Uuid), u64>,
}

/// Where a command comes from: its id, its cause, its saga, and who sends it.
struct Origin {
    command: Uuid,
    causation: Uuid,
    correlation: Uuid,
    actor: String,
}

impl World {
    pub(crate) fn new(partitions: u16) -> Self {
        Self {
            partitions,
            log: Vec::new(),
            pending: Vec::new(),
            dead: Vec::new(),
            ids: 0,
            now: 1_700_000_000_000_000,
            names: BTreeMap::new(),
            accounts: BTreeMap::new(),
            sales: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    pub(crate) fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &self.ids.to_le_bytes())
    }

    fn client(&mut self) -> Origin {
        let command = self.id();
        Origin { command, causation: command, correlation: command, actor: "client".to_owned() }
    }

    /// Appends the records of one command; answers with the last record's id.
    fn append(&mut self, origin: &Origin, kind: &str, id: Uuid, events: &[(&str, String)]) -> Uuid {
        let partition = u16::try_from(id.as_u128() % u128::from(self.partitions)).unwrap();
        self.now += 10;
        let mut last = Uuid::nil();
        for (index, (event_type, payload)) in events.iter().enumerate() {
            let sequence = super::stored::head(&self.log, partition) + 1;
            let outcome = event_type.starts_with("Command") || *event_type == "DeadLetterDiscarded";
            let version = (!outcome).then(|| {
                let version = self.versions.entry((kind.to_owned(), id)).or_default();
                *version += 1;
                *version
            });
            last = self.id();
            self.log.push(Owned {
                partition,
                sequence,
                record_id: last,
                recorded_at: self.now,
                aggregate_type: kind.to_owned(),
                aggregate_id: id,
                version,
                event_type: (*event_type).to_owned(),
                schema: 1,
                payload: payload.clone(),
                command_id: origin.command,
                correlation_id: origin.correlation,
                causation_id: origin.causation,
                actor: origin.actor.clone(),
                traceparent: None,
                command_last: index + 1 == events.len(),
            });
        }
        last
    }

    fn refuse(
        &mut self,
        origin: &Origin,
        (kind, id): (&str, Uuid),
        reason: &str,
        (method, command): (&str, String),
    ) -> Uuid {
        let data = format!(
            r#"{{"reason":"{reason}","message":"no: {reason}","refusal":{{"reason":"{reason}"}},"method":"{method}","command":{{"{kind}":{{"{method}":{{{command}}}}}}}}}"#
        );
        self.append(origin, kind, id, &[("CommandRefused", data)])
    }

    fn unchanged(&mut self, origin: &Origin, (kind, id): (&str, Uuid), method: &str, command: &str) {
        let data = format!(r#"{{"method":"{method}","command":{{"{kind}":{{"{method}":{{{command}}}}}}}}}"#);
        self.append(origin, kind, id, &[("CommandUnchanged", data)]);
    }

    pub(crate) fn issuer(&mut self, id: Uuid, name: &str) {
        let origin = self.client();
        let data = format!(r#""issuer_id":"{id}","name":"{name}""#);
        match self.names.get(&id).cloned() {
            None => {
                self.names.insert(id, name.to_owned());
                self.append(&origin, "issuer", id, &[("IssuerCreated", format!("{{{data}}}"))]);
            }
            Some(known) if known == name => self.unchanged(&origin, ("issuer", id), "CreateIssuer", &data),
            Some(_) => {
                self.refuse(&origin, ("issuer", id), "ALREADY_REGISTERED", ("CreateIssuer", data));
            }
        }
    }

    pub(crate) fn investor(&mut self, id: Uuid, name: &str, balance: i64, currency: &'static str) {
        let origin = self.client();
        if self.accounts.contains_key(&id) {
            let balance = money(balance, currency);
            let data = format!(r#""investor_id":"{id}","name":"{name}","balance":{balance}"#);
            return self.unchanged(&origin, ("investor", id), "CreateInvestor", &data);
        }
        let created = format!(r#"{{"investor_id":"{id}","name":"{name}","currency_code":"{currency}"}}"#);
        let mut events = vec![("InvestorCreated", created)];
        if balance > 0 {
            let amount = money(balance, currency);
            let added = format!(r#"{{"investor_id":"{id}","amount":{amount}}}"#);
            events.push(("InvestorFundsAdded", added));
        }
        self.append(&origin, "investor", id, &events);
        self.accounts.insert(id, Account { currency, available: balance, bids: BTreeMap::new() });
    }

    pub(crate) fn sell(&mut self, invoice: Uuid, issuer: Uuid, asking: i64) {
        let origin = self.client();
        let price = euros(asking);
        let data = format!(r#""invoice_id":"{invoice}","issuer_id":"{issuer}","asking_price":{price}"#);
        let target = ("invoice", invoice);
        if let Some(sale) = self.sales.get(&invoice) {
            if sale.asking == asking && sale.issuer == issuer {
                self.unchanged(&origin, target, "SellInvoice", &data);
            } else {
                self.refuse(&origin, target, "INVOICE_ALREADY_SOLD", ("SellInvoice", data));
            }
        } else if self.names.contains_key(&issuer) {
            self.append(&origin, "invoice", invoice, &[("InvoiceCreated", format!("{{{data}}}"))]);
            self.sales.insert(invoice, Sale { issuer, asking, winner: None, ended: false });
        } else {
            self.refuse(&origin, target, "ISSUER_NOT_FOUND", ("SellInvoice", data));
        }
    }

    pub(crate) fn bid(&mut self, bid: Uuid, investor: Uuid, invoice: Uuid, amount: i64) {
        let origin = self.client();
        let target = ("investor", investor);
        let account = self.accounts.get(&investor).cloned().unwrap_or_default();
        let known = self.accounts.contains_key(&investor);
        let currency = if known { account.currency } else { "EUR" };
        let placed = Placed { bid, investor, invoice, amount, currency };
        let command = ("BidOnInvoice", placed.json());
        if !known {
            self.refuse(&origin, target, "INVESTOR_NOT_FOUND", command);
        } else if account.available < amount {
            self.refuse(&origin, target, "INSUFFICIENT_FUNDS", command);
        } else {
            let account = self.accounts.get_mut(&investor).unwrap();
            account.available -= amount;
            account.bids.insert(bid, amount);
            let data = format!("{{{}}}", placed.json());
            let cause = self.append(&origin, "investor", investor, &[("BidOnInvoicePlaced", data)]);
            self.follows("process-placed-bid", cause, origin.correlation, Next::Process(placed));
        }
    }

    pub(crate) fn approve(&mut self, invoice: Uuid) {
        self.final_word(invoice, "ApproveFinancing", "InvoiceApproved", ("commit-approved", "COMMIT"));
    }

    pub(crate) fn reverse(&mut self, invoice: Uuid) {
        self.final_word(invoice, "ReverseFinancing", "InvoiceReversed", ("return-reversed", "RETURN"));
    }

    fn final_word(
        &mut self,
        invoice: Uuid,
        method: &str,
        event: &str,
        (policy, kind): (&'static str, &'static str),
    ) {
        let origin = self.client();
        let target = ("invoice", invoice);
        let command = (method, format!(r#""invoice_id":"{invoice}""#));
        let Some(sale) = self.sales.get_mut(&invoice) else {
            self.refuse(&origin, target, "INVOICE_NOT_FOUND", command);
            return;
        };
        let Some(winner) = sale.winner.clone().filter(|_| !sale.ended) else {
            self.refuse(&origin, target, "INVOICE_NOT_FINANCED", command);
            return;
        };
        sale.ended = true;
        let (issuer, asking) = (sale.issuer, sale.asking);
        let data =
            format!(r#"{{"issuer_id":"{issuer}",{},"asking_price":{}}}"#, winner.json(), euros(asking));
        let cause = self.append(&origin, "invoice", invoice, &[(event, data)]);
        self.follows(policy, cause, origin.correlation, Next::Move(kind, winner, asking));
    }

    /// Something that is no command arrives in this partition's queue.
    pub(crate) fn nonsense(&mut self) {
        let origin = Origin { actor: "unknown".to_owned(), ..self.client() };
        let data = r#"{"reason":"UNDECODABLE","message":"expected value","raw":"nonsense"}"#.to_owned();
        self.append(&origin, "unknown", Uuid::nil(), &[("CommandDead", data)]);
    }

    fn follows(&mut self, policy: &'static str, cause: Uuid, correlation: Uuid, next: Next) {
        self.pending.push(Pending { policy, cause, correlation, next });
    }

    /// Works one pending step of the saga off.
    pub(crate) fn step(&mut self, index: usize) {
        let Pending { policy, cause, correlation, next } = self.pending.remove(index);
        let origin = Origin {
            command: Uuid::new_v5(&cause, policy.as_bytes()),
            causation: cause,
            correlation,
            actor: format!("policy:{policy}"),
        };
        match next {
            Next::Process(placed) => self.process(&origin, &placed),
            Next::Move(kind, placed, amount) => self.moves(&origin, kind, &placed, amount),
        }
    }

    /// A pending step of the saga can never succeed.
    pub(crate) fn kill(&mut self, index: usize) {
        let pending = self.pending.remove(index);
        let Pending { policy, cause, correlation, .. } = pending;
        let origin = Origin {
            command: Uuid::new_v5(&cause, policy.as_bytes()),
            causation: cause,
            correlation,
            actor: format!("policy:{policy}"),
        };
        self.dies(&origin, pending);
    }

    fn dies(&mut self, origin: &Origin, pending: Pending) {
        let (kind, id) = pending.next.target();
        let data = r#"{"reason":"UNSTORABLE","message":"the store refuses it","command":{"a":1}}"#.to_owned();
        let letter = self.append(origin, kind, id, &[("CommandDead", data)]);
        self.dead.push((letter, pending));
    }

    /// What resolves a dead letter: its origin, and what died.
    fn resolves(&mut self, index: usize) -> (Uuid, Origin, Pending) {
        let (letter, pending) = self.dead.remove(index);
        let origin = Origin {
            command: Uuid::new_v5(&letter, b"resolution"),
            causation: letter,
            correlation: pending.correlation,
            actor: format!("policy:{}", pending.policy),
        };
        (letter, origin, pending)
    }

    /// A dead letter is retried, and works.
    pub(crate) fn retry(&mut self, index: usize) {
        let (_, origin, pending) = self.resolves(index);
        match pending.next {
            Next::Process(placed) => self.process(&origin, &placed),
            Next::Move(kind, placed, amount) => self.moves(&origin, kind, &placed, amount),
        }
    }

    /// A dead letter is retried, and dies again.
    pub(crate) fn retry_in_vain(&mut self, index: usize) {
        let (_, origin, pending) = self.resolves(index);
        self.dies(&origin, pending);
    }

    /// A dead letter is discarded.
    pub(crate) fn discard(&mut self, index: usize) {
        let (letter, origin, pending) = self.resolves(index);
        let (kind, id) = pending.next.target();
        let origin = Origin { actor: "somebody".to_owned(), ..origin };
        let partition = id.as_u128() % u128::from(self.partitions);
        let data = format!(r#"{{"letter_id":"{letter}","partition":{partition},"reason":"paid by hand"}}"#);
        self.append(&origin, kind, id, &[("DeadLetterDiscarded", data)]);
    }

    /// A dead letter is discarded, and that dies: a worker of an older release cannot read it.
    pub(crate) fn discard_in_vain(&mut self, index: usize) {
        let (letter, origin, pending) = self.resolves(index);
        let (kind, id) = pending.next.target();
        let origin = Origin { actor: "somebody".to_owned(), ..origin };
        let data = format!(
            r#"{{"reason":"UNDECODABLE","message":"unknown variant","command":{{"discards":"{letter}"}}}}"#
        );
        let died = self.append(&origin, kind, id, &[("CommandDead", data)]);
        self.dead.push((died, pending));
    }

    fn process(&mut self, origin: &Origin, placed: &Placed) {
        let target = ("invoice", placed.invoice);
        let correlation = origin.correlation;
        let release = Next::Move("RELEASE", placed.clone(), placed.amount);
        let Some(sale) = self.sales.get_mut(&placed.invoice) else {
            let cause = self.refuse(origin, target, "INVOICE_NOT_FOUND", ("ProcessBid", placed.json()));
            return self.follows("release-refused-bid", cause, correlation, release);
        };
        let reason = if sale.winner.is_some() {
            "INVOICE_NOT_AVAILABLE"
        } else if sale.issuer == placed.investor {
            "SELF_FINANCING"
        } else if placed.currency != "EUR" {
            "CURRENCY_MISMATCH"
        } else if placed.amount < sale.asking {
            "BID_BELOW_ASKING_PRICE"
        } else {
            sale.winner = Some(placed.clone());
            let (issuer, asking) = (sale.issuer, sale.asking);
            let data =
                format!(r#"{{"issuer_id":"{issuer}",{},"asking_price":{}}}"#, placed.json(), euros(asking));
            let cause = self.append(origin, "invoice", placed.invoice, &[("InvoiceFinanced", data)]);
            if placed.amount > asking {
                let next = Next::Move("EXCESS", placed.clone(), placed.amount - asking);
                self.follows("release-excess", cause, correlation, next);
            }
            return;
        };
        let data = format!(r#"{{{},"reason":"{reason}"}}"#, placed.json());
        let cause = self.append(origin, "invoice", placed.invoice, &[("BidOnInvoiceRejected", data)]);
        self.follows("release-rejected-bid", cause, correlation, release);
    }

    fn moves(&mut self, origin: &Origin, kind: &'static str, placed: &Placed, amount: i64) {
        let account = self.accounts.get_mut(&placed.investor).unwrap();
        let left = account.bids.get_mut(&placed.bid).unwrap();
        *left -= amount;
        let left = *left;
        let (event, shown) = if kind == "COMMIT" {
            ("InvestorFundsCommitted", String::new())
        } else {
            account.available += amount;
            ("InvestorFundsReleased", format!(r#""kind":"{kind}","#))
        };
        let Placed { bid, investor, invoice, currency, .. } = placed;
        let (amount, remainder) = (money(amount, currency), money(left, currency));
        let data = format!(
            r#"{{"investor_id":"{investor}","bid_id":"{bid}","invoice_id":"{invoice}",{shown}"amount":{amount},"remainder":{remainder}}}"#
        );
        self.append(origin, "investor", *investor, &[(event, data)]);
    }

    /// The records that something must still follow from.
    pub(crate) fn pending_causes(&self) -> Vec<Uuid> {
        self.pending.iter().map(|pending| pending.cause).collect()
    }

    /// Works everything off.
    pub(crate) fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.step(0);
        }
    }
}
