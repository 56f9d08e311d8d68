//! How a connection begins: protocol header, login, tuning, vhost (amqp-0-9-1 §2.2.4, RabbitMQ's `rabbit_reader`).

use super::{Connection, Effects, Failure, HostQuestion, NoticeLevel, Phase, Then, Waiting};
use crate::access::{EXTERNAL, Login, MECHANISMS, Refusal, Resource, Right, Rights, Subject, User};
use crate::command::{Admission, ConnectionEvent, Fault, Now};
use crate::grant::Grant;
use crate::identity::limit;
use crate::topology::Topology;
use amqp::method::connection::{Open, OpenOk, Start, StartOk, Tune, TuneOk, UpdateSecret, UpdateSecretOk};
use amqp::{ChannelId, Method, MethodId, Reply, ReplyCode, Table, Value};
use std::sync::Arc;
use std::time::Duration;

/// What connections are held to.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Channels a connection may have open; 1 to 65,535.
    pub channel_max: u16,
    /// The largest frame, in bytes, its 8 bytes of overhead included; at least 8,192.
    pub frame_max: u32,
    /// The largest frame before that is agreed on: what a client says to log in has to fit.
    pub first_frame_max: u32,
    /// The heartbeat that is suggested to clients, in seconds; 0 = none. What the client answers wins.
    pub heartbeat_s: u16,
    /// The largest body of a message, in bytes.
    pub message_bytes_max: u64,
    /// How long a client may take from the socket's opening to connection.open.
    pub handshake_timeout: Duration,
    /// How clients may log in, divided by spaces, of [`MECHANISMS`] and `EXTERNAL`. That one is offered to those only
    /// whose certificate names a user.
    pub mechanisms: String,
    /// The program's version, as clients and people see it.
    pub version: String,
    /// The server's name, as the firehose has it.
    pub node: String,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            channel_max: 2047,
            frame_max: 131_072,
            first_frame_max: FRAME_MAX_INITIAL,
            heartbeat_s: 60,
            message_bytes_max: 128 << 20,
            handshake_timeout: Duration::from_secs(10),
            mechanisms: MECHANISMS.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: "leveret".to_owned(),
        }
    }
}

/// What we call ourselves to clients: the product whose behaviour they may count on. Some refuse any other name, and
/// kombu (Celery) chooses by name and version whether `basic.qos` is per channel: it is with 3.3 to 3.x, which we honour
/// at once, so that tasks held for their time (ETA, countdown) neither stall a worker nor let it take too much.
const COMPATIBLE_PRODUCT: &str = "RabbitMQ";
/// The version of RabbitMQ whose behaviour clients and tools may count on.
pub const COMPATIBLE_VERSION: &str = "3.13.7";

/// The smallest frame_max that is granted. RabbitMQ 4 wants 8,192, but clients that ask for the 4,096 of the
/// specification are served by earlier releases and so by us.
const FRAME_MIN: u32 = 4096;
/// Largest frame before tune-ok: the least that the specification grants (amqp-0-9-1 §1.4.2.6). RabbitMQ's releases up
/// to 3.13 refuse larger ones too, and clients' tests hold servers to it.
const FRAME_MAX_INITIAL: u32 = 4096;
/// How long a refused login that cannot be told waits for the end of its socket: it slows guessing.
pub(super) const REFUSED_WAIT_MS: u64 = 3000;

impl ConnectionSettings {
    fn server_properties(&self) -> Table {
        const CAPABILITIES: [&str; 9] = [
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
            "direct_reply_to",
        ];
        let capabilities: Table = CAPABILITIES.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
        let text = |text: &str| Value::Str(text.as_bytes().to_vec());
        [
            ("capabilities", Value::Table(capabilities)),
            ("cluster_name", text("leveret")),
            ("copyright", text("The Leveret developers")),
            ("information", text("Licensed under MIT OR Apache-2.0")),
            ("platform", text(&format!("Leveret {}", self.version))),
            ("product", text(COMPATIBLE_PRODUCT)),
            ("version", text(COMPATIBLE_VERSION)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

impl Connection {
    pub(super) fn send_start(&mut self, fx: &mut Effects) {
        let offered: Vec<_> = self.offered().collect();
        let offered = offered.join(" ");
        let start = Start {
            version_major: 0,
            version_minor: 9,
            server_properties: self.settings.server_properties(),
            mechanisms: offered.as_bytes(),
            locales: b"en_US",
        };
        start.encode(ChannelId::CONNECTION, fx.out.tail());
        self.phase = Phase::AwaitStartOk;
    }

    /// The mechanisms that this client may choose from.
    fn offered(&self) -> impl Iterator<Item = &str> {
        let is_offered = |mechanism: &&str| *mechanism != EXTERNAL || self.certificate_user().is_some();
        self.settings.mechanisms.split(' ').filter(is_offered)
    }

    /// The user that the client's verified certificate stands for.
    fn certificate_user(&self) -> Option<&str> {
        self.tls.as_ref()?.certificate.as_ref()?.user.as_deref()
    }

    pub(super) fn handshake_method(
        &mut self,
        now: Now,
        method: Method<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Failure> {
        match (self.phase, method) {
            (Phase::AwaitStartOk, Method::ConnectionStartOk(start_ok)) => self.start_ok(now, start_ok, fx),
            (Phase::AwaitTuneOk, Method::ConnectionTuneOk(tune_ok)) => self.tune_ok(now, tune_ok),
            (Phase::AwaitOpen, Method::ConnectionOpen(open)) => self.open(open.vhost, topology, fx),
            (phase, method) => {
                let text = format!("unexpected method in connection state {}", phase.name());
                Err(Failure::new(Fault::new(ReplyCode::ChannelError, text), method.id()))
            }
        }
    }

    fn start_ok(&mut self, now: Now, start_ok: StartOk<'_>, fx: &mut Effects) -> Result<(), Failure> {
        self.client = Client::of(start_ok.client_properties);
        self.mechanism = match start_ok.mechanism {
            "PLAIN" => "PLAIN",
            "AMQPLAIN" => "AMQPLAIN",
            EXTERNAL => EXTERNAL,
            _ => "",
        };
        let is_offered = self.offered().any(|mechanism| mechanism == start_ok.mechanism);
        let login = match (start_ok.mechanism, self.certificate_user()) {
            (mechanism, _) if !is_offered => Err(Refusal::UnknownMechanism { mechanism: mechanism.to_owned() }),
            // TLS has checked the certificate: no password, but the user must be known and allowed from there.
            (EXTERNAL, Some(user)) => Ok(Login::external(user)),
            _ => Login::read(start_ok.mechanism, start_ok.response),
        };
        match login {
            Ok(login) => {
                self.next_call();
                self.wait(1, ChannelId::CONNECTION, MethodId::NONE, Then::LogIn);
                fx.question = Some(HostQuestion::LogIn(login));
                Ok(())
            }
            Err(refusal) => self.refuse_login(now, &refusal, fx),
        }
    }

    /// The host knows whether the login is right.
    pub(super) fn logged_in(&mut self, now: Now, login: Result<User, Refusal>, fx: &mut Effects) {
        let is_asked = |waiting: &mut Waiting| matches!(waiting.then, Then::LogIn | Then::Renew);
        let Some(waiting) = self.waiting.take_if(is_asked) else { return };
        if matches!(waiting.then, Then::Renew) {
            return self.renewed(now, login, fx);
        }
        match login {
            Ok(user) => {
                self.impersonates = user.has_tag("impersonator");
                (self.user, self.user_id, self.grant) = (user.name, user.id, user.grant);
                self.phase = Phase::AwaitTuneOk;
                Tune {
                    channel_max: self.settings.channel_max,
                    frame_max: self.settings.frame_max,
                    heartbeat: self.settings.heartbeat_s,
                }
                .encode(ChannelId::CONNECTION, fx.out.tail());
            }
            Err(refusal) => {
                if let Err(Failure { fault, method }) = self.refuse_login(now, &refusal, fx) {
                    self.fail(now, &Reply::new(fault.code, fault.text, method), fx);
                }
            }
        }
    }

    /// A new token is for the host to judge. Passwords are looked at once, so that a new one changes nothing.
    pub(super) fn update_secret(&mut self, secret: &[u8], fx: &mut Effects) {
        if self.grant.is_none() {
            UpdateSecretOk.encode(ChannelId::CONNECTION, fx.out.tail());
            return;
        }
        self.next_call();
        self.wait(1, ChannelId::CONNECTION, UpdateSecret::ID, Then::Renew);
        fx.question = Some(HostQuestion::Renew(Login::bearer(secret)));
    }

    /// The host knows what the new token says.
    fn renewed(&mut self, now: Now, login: Result<User, Refusal>, fx: &mut Effects) {
        let why = match login {
            Ok(user) if user.name == self.user => {
                self.impersonates = user.has_tag("impersonator");
                self.use_grant(user.grant);
                fx.notice(NoticeLevel::Info, format!("user '{}' updated their token", self.user));
                UpdateSecretOk.encode(ChannelId::CONNECTION, fx.out.tail());
                return;
            }
            Ok(other) => format!("it is of user '{}', not '{}'", other.name, self.user),
            Err(refusal) => refusal.log_text(),
        };
        fx.notice(NoticeLevel::Warn, format!("the new token was refused: {why}"));
        let text = "New secret was refused by one of the backends";
        self.fail(now, &Reply::new(ReplyCode::NotAllowed, text, UpdateSecret::ID), fx);
    }

    /// A token whose time is over allows nothing from now on. Its connection stays, as RabbitMQ's does: its client may send a
    /// new one.
    pub(super) fn let_grant_lapse(&mut self, now: Now) {
        if let Some(lapsed) = self.grant.as_ref().and_then(|grant| grant.lapsed(now.unix_ms / 1000)) {
            self.use_grant(Some(Arc::new(lapsed)));
        }
    }

    fn use_grant(&mut self, grant: Option<Arc<Grant>>) {
        self.grant = grant;
        self.rights = None;
        self.channels.values_mut().for_each(|channel| channel.forget_rights());
    }

    pub(super) fn subject(&self) -> Subject {
        Subject { name: Arc::clone(&self.user), grant: self.grant.clone() }
    }

    fn refuse_login(&mut self, now: Now, refusal: &Refusal, fx: &mut Effects) -> Result<(), Failure> {
        fx.notice(NoticeLevel::Warn, refusal.log_text());
        let fault = refusal.fault();
        let told = fault.code != ReplyCode::AccessRefused || self.client.authentication_failure_close;
        if told {
            return Err(Failure { fault, method: MethodId::NONE });
        }
        self.phase = Phase::Refused { until_ms: now.ms + REFUSED_WAIT_MS };
        Ok(())
    }

    fn tune_ok(&mut self, now: Now, tune_ok: TuneOk) -> Result<(), Failure> {
        let refused = |text: String| Err(Failure::new(Fault::new(ReplyCode::NotAllowed, text), TuneOk::ID));
        let (frame_max, channel_max) = (self.settings.frame_max, self.settings.channel_max);
        match tune_ok.frame_max {
            0 => {
                return refused(format!(
                    "negotiated frame_max = 0 (no limit) is higher than the maximum allowed value ({frame_max})"
                ));
            }
            asked if asked < FRAME_MIN => {
                return refused(format!(
                    "negotiated frame_max = {asked} is lower than the minimum allowed value ({FRAME_MIN})"
                ));
            }
            asked if asked > frame_max => {
                return refused(format!(
                    "negotiated frame_max = {asked} is higher than the maximum allowed value ({frame_max})"
                ));
            }
            asked => self.frame_max = asked,
        }
        match tune_ok.channel_max {
            0 => {
                return refused(format!(
                    "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value ({channel_max})"
                ));
            }
            asked if asked > channel_max => {
                return refused(format!(
                    "negotiated channel_max = {asked} is higher than the maximum allowed value ({channel_max})"
                ));
            }
            asked => self.channel_max = asked,
        }
        self.heartbeat_s = tune_ok.heartbeat;
        self.next_beat_ms = now.ms + self.beat_interval_ms();
        self.phase = Phase::AwaitOpen;
        Ok(())
    }

    fn open(&mut self, vhost: &str, topology: &Topology, fx: &mut Effects) -> Result<(), Failure> {
        let refused = |fault| Err(Failure::new(fault, Open::ID));
        let Some(id) = topology.vhost(vhost) else {
            return refused(Fault::new(ReplyCode::NotAllowed, format!("vhost {vhost} not found")));
        };
        self.vhost = id;
        self.vhost_name = topology.vhost_name(id).clone();
        let rights = topology.rights_of(&self.subject(), id);
        let user = topology.user(&self.user);
        let is_known = self.grant.is_some() || user.is_some_and(|user| user.id == self.user_id);
        if !(is_known && rights.may_enter()) {
            return refused(rights.stranger());
        }
        let user_max = user.and_then(|user| limit(user.limits.max_connections));
        self.rights = Some(Arc::new(rights));
        self.rights_generation = topology.access_generation();
        let vhost_max = topology.vhost_record(id).and_then(|record| limit(record.limits.max_connections));
        self.next_call();
        self.wait(1, ChannelId::CONNECTION, Open::ID, Then::Enter { limits: (vhost_max, user_max) });
        fx.question = Some(HostQuestion::Enter { vhost: id, vhost_max, user: Arc::clone(&self.user), user_max });
        Ok(())
    }

    /// The host knows whether there is room for what was asked.
    pub(super) fn admitted(&mut self, now: Now, admission: Admission, fx: &mut Effects) {
        let is_asked = |waiting: &mut Waiting| matches!(waiting.then, Then::Enter { .. } | Then::OpenChannel { .. });
        let Some(waiting) = self.waiting.take_if(is_asked) else { return };
        let user = &self.user;
        let text = match (waiting.then, admission) {
            (Then::Enter { .. }, Admission::Granted) => {
                self.phase = Phase::Running;
                self.last_received_ms = now.ms;
                OpenOk.encode(ChannelId::CONNECTION, fx.out.tail());
                return;
            }
            (_, Admission::Granted) => {
                self.open_channel_of(now, waiting.channel, fx);
                return;
            }
            (Then::Enter { limits: (Some(most), _) }, Admission::VhostFull) => {
                let vhost = &self.vhost_name;
                format!("access to vhost '{vhost}' refused for user '{user}': connection limit ({most}) is reached")
            }
            (Then::Enter { limits: (_, most) }, _) => {
                let most = most.unwrap_or(0);
                format!("connection refused for user '{user}': user connection limit ({most}) is reached")
            }
            (Then::OpenChannel { limit }, _) => {
                format!(
                    "number of channels opened for user '{user}' has reached the maximum allowed user limit of {limit}"
                )
            }
            _ => return,
        };
        self.fail(now, &Reply::new(ReplyCode::NotAllowed, text, waiting.method), fx);
    }

    /// Closes the connection if its user or its vhost is gone, and begins or ends to copy for the vhost's firehose. To be
    /// called after a change of any of these.
    pub fn look_again(&mut self, now: Now, topology: &Topology, fx: &mut Effects) {
        let traces = self.rights.is_some() && topology.is_traced(self.vhost);
        if self.watch.copy(traces) {
            self.channels.values_mut().for_each(|channel| channel.forget_pattern());
        }
        let logged_in = !self.user.is_empty();
        let has_user = self.grant.is_some() || topology.user(&self.user).is_some_and(|user| user.id == self.user_id);
        let has_vhost = self.rights.is_none() || topology.vhost_record(self.vhost).is_some();
        let text = match (has_user || !logged_in, has_vhost) {
            (true, true) => return,
            (false, _) => format!("user '{}' is deleted", self.user),
            (true, false) => format!("vhost '{}' is deleted", self.vhost_name),
        };
        self.apply(now, ConnectionEvent::Close(Fault::new(ReplyCode::ConnectionForced, text)), fx);
    }

    /// What the user may do, as of now.
    pub(crate) fn rights_now(&mut self, topology: &Topology) -> Arc<Rights> {
        match &self.rights {
            Some(rights) if self.rights_generation == topology.access_generation() => Arc::clone(rights),
            _ => {
                let rights = Arc::new(topology.rights_of(&self.subject(), self.vhost));
                self.rights_generation = topology.access_generation();
                self.rights = Some(Arc::clone(&rights));
                rights
            }
        }
    }

    /// Refuses what the user has no right to.
    pub(crate) fn check_right(&mut self, right: Right, to: Resource<'_>, topology: &Topology) -> Result<(), Fault> {
        self.rights_now(topology).check(right, to)
    }
}

/// What a client said of itself, and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(super) properties: Table,
    pub(crate) consumer_cancel_notify: bool,
    pub(super) authentication_failure_close: bool,
    /// It wants to be told when it is blocked.
    pub(super) connection_blocked: bool,
    /// kombu's transport. For quorum queues Celery's worker uses `basic.qos` without `global` whatever the server is,
    /// and still raises it for tasks that it holds until their time. A running consumer would keep the limit that it
    /// started with (RabbitMQ), and the worker would stall; so for this client it changes at once.
    pub(crate) qos_changes_consumers: bool,
}

impl Client {
    /// What it calls the connection.
    pub(crate) fn name(&self) -> Option<&str> {
        self.properties.get("connection_name")?.as_str()
    }

    fn of(properties: Table) -> Self {
        let capability = |name| match properties.get("capabilities") {
            Some(Value::Table(capabilities)) => capabilities.get(name).and_then(Value::as_bool) == Some(true),
            _ => false,
        };
        Self {
            consumer_cancel_notify: capability("consumer_cancel_notify"),
            authentication_failure_close: capability("authentication_failure_close"),
            connection_blocked: capability("connection.blocked"),
            qos_changes_consumers: properties.get("product").and_then(Value::as_str) == Some("py-amqp"),
            properties,
        }
    }
}
