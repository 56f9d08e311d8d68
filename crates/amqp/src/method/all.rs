//! Any method: told apart, read and written.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::BytesMut;

use super::{MethodId, access, basic, channel, confirm, connection, exchange, queue, tx};
use crate::ChannelId;
use crate::wire::{DecodeError, Reader};

/// Any method of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Method<'a> {
    /// connection.start
    ConnectionStart(connection::Start<'a>),
    /// connection.start-ok
    ConnectionStartOk(connection::StartOk<'a>),
    /// connection.secure
    ConnectionSecure(connection::Secure<'a>),
    /// connection.secure-ok
    ConnectionSecureOk(connection::SecureOk<'a>),
    /// connection.tune
    ConnectionTune(connection::Tune),
    /// connection.tune-ok
    ConnectionTuneOk(connection::TuneOk),
    /// connection.open
    ConnectionOpen(connection::Open<'a>),
    /// connection.open-ok
    ConnectionOpenOk(connection::OpenOk),
    /// connection.close
    ConnectionClose(connection::Close<'a>),
    /// connection.close-ok
    ConnectionCloseOk(connection::CloseOk),
    /// connection.blocked
    ConnectionBlocked(connection::Blocked<'a>),
    /// connection.unblocked
    ConnectionUnblocked(connection::Unblocked),
    /// connection.update-secret
    ConnectionUpdateSecret(connection::UpdateSecret<'a>),
    /// connection.update-secret-ok
    ConnectionUpdateSecretOk(connection::UpdateSecretOk),
    /// channel.open
    ChannelOpen(channel::Open),
    /// channel.open-ok
    ChannelOpenOk(channel::OpenOk),
    /// channel.flow
    ChannelFlow(channel::Flow),
    /// channel.flow-ok
    ChannelFlowOk(channel::FlowOk),
    /// channel.close
    ChannelClose(channel::Close<'a>),
    /// channel.close-ok
    ChannelCloseOk(channel::CloseOk),
    /// access.request
    AccessRequest(access::Request<'a>),
    /// access.request-ok
    AccessRequestOk(access::RequestOk),
    /// exchange.declare
    ExchangeDeclare(exchange::Declare<'a>),
    /// exchange.declare-ok
    ExchangeDeclareOk(exchange::DeclareOk),
    /// exchange.delete
    ExchangeDelete(exchange::Delete<'a>),
    /// exchange.delete-ok
    ExchangeDeleteOk(exchange::DeleteOk),
    /// exchange.bind
    ExchangeBind(exchange::Bind<'a>),
    /// exchange.bind-ok
    ExchangeBindOk(exchange::BindOk),
    /// exchange.unbind
    ExchangeUnbind(exchange::Unbind<'a>),
    /// exchange.unbind-ok
    ExchangeUnbindOk(exchange::UnbindOk),
    /// queue.declare
    QueueDeclare(queue::Declare<'a>),
    /// queue.declare-ok
    QueueDeclareOk(queue::DeclareOk<'a>),
    /// queue.bind
    QueueBind(queue::Bind<'a>),
    /// queue.bind-ok
    QueueBindOk(queue::BindOk),
    /// queue.purge
    QueuePurge(queue::Purge<'a>),
    /// queue.purge-ok
    QueuePurgeOk(queue::PurgeOk),
    /// queue.delete
    QueueDelete(queue::Delete<'a>),
    /// queue.delete-ok
    QueueDeleteOk(queue::DeleteOk),
    /// queue.unbind
    QueueUnbind(queue::Unbind<'a>),
    /// queue.unbind-ok
    QueueUnbindOk(queue::UnbindOk),
    /// basic.qos
    BasicQos(basic::Qos),
    /// basic.qos-ok
    BasicQosOk(basic::QosOk),
    /// basic.consume
    BasicConsume(basic::Consume<'a>),
    /// basic.consume-ok
    BasicConsumeOk(basic::ConsumeOk<'a>),
    /// basic.cancel
    BasicCancel(basic::Cancel<'a>),
    /// basic.cancel-ok
    BasicCancelOk(basic::CancelOk<'a>),
    /// basic.publish
    BasicPublish(basic::Publish<'a>),
    /// basic.return
    BasicReturn(basic::Return<'a>),
    /// basic.deliver
    BasicDeliver(basic::Deliver<'a>),
    /// basic.get
    BasicGet(basic::Get<'a>),
    /// basic.get-ok
    BasicGetOk(basic::GetOk<'a>),
    /// basic.get-empty
    BasicGetEmpty(basic::GetEmpty),
    /// basic.ack
    BasicAck(basic::Ack),
    /// basic.reject
    BasicReject(basic::Reject),
    /// basic.recover-async
    BasicRecoverAsync(basic::RecoverAsync),
    /// basic.recover
    BasicRecover(basic::Recover),
    /// basic.recover-ok
    BasicRecoverOk(basic::RecoverOk),
    /// basic.nack
    BasicNack(basic::Nack),
    /// confirm.select
    ConfirmSelect(confirm::Select),
    /// confirm.select-ok
    ConfirmSelectOk(confirm::SelectOk),
    /// tx.select
    TxSelect(tx::Select),
    /// tx.select-ok
    TxSelectOk(tx::SelectOk),
    /// tx.commit
    TxCommit(tx::Commit),
    /// tx.commit-ok
    TxCommitOk(tx::CommitOk),
    /// tx.rollback
    TxRollback(tx::Rollback),
    /// tx.rollback-ok
    TxRollbackOk(tx::RollbackOk),
}

impl<'a> Method<'a> {
    /// Reads a method frame's payload.
    ///
    /// # Errors
    /// [`DecodeError::UnknownMethod`] when there is no such method; otherwise an error that names
    /// the method whose arguments cannot be read or have octets after them.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let id = MethodId { class: reader.short()?, method: reader.short()? };
        Self::read(id, &mut reader).and_then(|method| reader.end().map(|()| method)).map_err(|error| error.within(id))
    }

    fn read(id: MethodId, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match id {
            connection::Start::ID => Self::ConnectionStart(connection::Start::read(reader)?),
            connection::StartOk::ID => Self::ConnectionStartOk(connection::StartOk::read(reader)?),
            connection::Secure::ID => Self::ConnectionSecure(connection::Secure::read(reader)?),
            connection::SecureOk::ID => Self::ConnectionSecureOk(connection::SecureOk::read(reader)?),
            connection::Tune::ID => Self::ConnectionTune(connection::Tune::read(reader)?),
            connection::TuneOk::ID => Self::ConnectionTuneOk(connection::TuneOk::read(reader)?),
            connection::Open::ID => Self::ConnectionOpen(connection::Open::read(reader)?),
            connection::OpenOk::ID => Self::ConnectionOpenOk(connection::OpenOk::read(reader)?),
            connection::Close::ID => Self::ConnectionClose(connection::Close::read(reader)?),
            connection::CloseOk::ID => Self::ConnectionCloseOk(connection::CloseOk),
            connection::Blocked::ID => Self::ConnectionBlocked(connection::Blocked::read(reader)?),
            connection::Unblocked::ID => Self::ConnectionUnblocked(connection::Unblocked),
            connection::UpdateSecret::ID => Self::ConnectionUpdateSecret(connection::UpdateSecret::read(reader)?),
            connection::UpdateSecretOk::ID => Self::ConnectionUpdateSecretOk(connection::UpdateSecretOk),
            channel::Open::ID => Self::ChannelOpen(channel::Open::read(reader)?),
            channel::OpenOk::ID => Self::ChannelOpenOk(channel::OpenOk::read(reader)?),
            channel::Flow::ID => Self::ChannelFlow(channel::Flow::read(reader)?),
            channel::FlowOk::ID => Self::ChannelFlowOk(channel::FlowOk::read(reader)?),
            channel::Close::ID => Self::ChannelClose(channel::Close::read(reader)?),
            channel::CloseOk::ID => Self::ChannelCloseOk(channel::CloseOk),
            access::Request::ID => Self::AccessRequest(access::Request::read(reader)?),
            access::RequestOk::ID => Self::AccessRequestOk(access::RequestOk::read(reader)?),
            exchange::Declare::ID => Self::ExchangeDeclare(exchange::Declare::read(reader)?),
            exchange::DeclareOk::ID => Self::ExchangeDeclareOk(exchange::DeclareOk),
            exchange::Delete::ID => Self::ExchangeDelete(exchange::Delete::read(reader)?),
            exchange::DeleteOk::ID => Self::ExchangeDeleteOk(exchange::DeleteOk),
            exchange::Bind::ID => Self::ExchangeBind(exchange::Bind::read(reader)?),
            exchange::BindOk::ID => Self::ExchangeBindOk(exchange::BindOk),
            exchange::Unbind::ID => Self::ExchangeUnbind(exchange::Unbind::read(reader)?),
            exchange::UnbindOk::ID => Self::ExchangeUnbindOk(exchange::UnbindOk),
            queue::Declare::ID => Self::QueueDeclare(queue::Declare::read(reader)?),
            queue::DeclareOk::ID => Self::QueueDeclareOk(queue::DeclareOk::read(reader)?),
            queue::Bind::ID => Self::QueueBind(queue::Bind::read(reader)?),
            queue::BindOk::ID => Self::QueueBindOk(queue::BindOk),
            queue::Purge::ID => Self::QueuePurge(queue::Purge::read(reader)?),
            queue::PurgeOk::ID => Self::QueuePurgeOk(queue::PurgeOk::read(reader)?),
            queue::Delete::ID => Self::QueueDelete(queue::Delete::read(reader)?),
            queue::DeleteOk::ID => Self::QueueDeleteOk(queue::DeleteOk::read(reader)?),
            queue::Unbind::ID => Self::QueueUnbind(queue::Unbind::read(reader)?),
            queue::UnbindOk::ID => Self::QueueUnbindOk(queue::UnbindOk),
            basic::Qos::ID => Self::BasicQos(basic::Qos::read(reader)?),
            basic::QosOk::ID => Self::BasicQosOk(basic::QosOk),
            basic::Consume::ID => Self::BasicConsume(basic::Consume::read(reader)?),
            basic::ConsumeOk::ID => Self::BasicConsumeOk(basic::ConsumeOk::read(reader)?),
            basic::Cancel::ID => Self::BasicCancel(basic::Cancel::read(reader)?),
            basic::CancelOk::ID => Self::BasicCancelOk(basic::CancelOk::read(reader)?),
            basic::Publish::ID => Self::BasicPublish(basic::Publish::read(reader)?),
            basic::Return::ID => Self::BasicReturn(basic::Return::read(reader)?),
            basic::Deliver::ID => Self::BasicDeliver(basic::Deliver::read(reader)?),
            basic::Get::ID => Self::BasicGet(basic::Get::read(reader)?),
            basic::GetOk::ID => Self::BasicGetOk(basic::GetOk::read(reader)?),
            basic::GetEmpty::ID => Self::BasicGetEmpty(basic::GetEmpty::read(reader)?),
            basic::Ack::ID => Self::BasicAck(basic::Ack::read(reader)?),
            basic::Reject::ID => Self::BasicReject(basic::Reject::read(reader)?),
            basic::RecoverAsync::ID => Self::BasicRecoverAsync(basic::RecoverAsync::read(reader)?),
            basic::Recover::ID => Self::BasicRecover(basic::Recover::read(reader)?),
            basic::RecoverOk::ID => Self::BasicRecoverOk(basic::RecoverOk),
            basic::Nack::ID => Self::BasicNack(basic::Nack::read(reader)?),
            confirm::Select::ID => Self::ConfirmSelect(confirm::Select::read(reader)?),
            confirm::SelectOk::ID => Self::ConfirmSelectOk(confirm::SelectOk),
            tx::Select::ID => Self::TxSelect(tx::Select),
            tx::SelectOk::ID => Self::TxSelectOk(tx::SelectOk),
            tx::Commit::ID => Self::TxCommit(tx::Commit),
            tx::CommitOk::ID => Self::TxCommitOk(tx::CommitOk),
            tx::Rollback::ID => Self::TxRollback(tx::Rollback),
            tx::RollbackOk::ID => Self::TxRollbackOk(tx::RollbackOk),

            unknown => return Err(DecodeError::UnknownMethod(unknown)),
        })
    }

    /// Which method it is.
    #[must_use]
    pub const fn id(&self) -> MethodId {
        match self {
            Self::ConnectionStart(_) => connection::Start::ID,
            Self::ConnectionStartOk(_) => connection::StartOk::ID,
            Self::ConnectionSecure(_) => connection::Secure::ID,
            Self::ConnectionSecureOk(_) => connection::SecureOk::ID,
            Self::ConnectionTune(_) => connection::Tune::ID,
            Self::ConnectionTuneOk(_) => connection::TuneOk::ID,
            Self::ConnectionOpen(_) => connection::Open::ID,
            Self::ConnectionOpenOk(_) => connection::OpenOk::ID,
            Self::ConnectionClose(_) => connection::Close::ID,
            Self::ConnectionCloseOk(_) => connection::CloseOk::ID,
            Self::ConnectionBlocked(_) => connection::Blocked::ID,
            Self::ConnectionUnblocked(_) => connection::Unblocked::ID,
            Self::ConnectionUpdateSecret(_) => connection::UpdateSecret::ID,
            Self::ConnectionUpdateSecretOk(_) => connection::UpdateSecretOk::ID,
            Self::ChannelOpen(_) => channel::Open::ID,
            Self::ChannelOpenOk(_) => channel::OpenOk::ID,
            Self::ChannelFlow(_) => channel::Flow::ID,
            Self::ChannelFlowOk(_) => channel::FlowOk::ID,
            Self::ChannelClose(_) => channel::Close::ID,
            Self::ChannelCloseOk(_) => channel::CloseOk::ID,
            Self::AccessRequest(_) => access::Request::ID,
            Self::AccessRequestOk(_) => access::RequestOk::ID,
            Self::ExchangeDeclare(_) => exchange::Declare::ID,
            Self::ExchangeDeclareOk(_) => exchange::DeclareOk::ID,
            Self::ExchangeDelete(_) => exchange::Delete::ID,
            Self::ExchangeDeleteOk(_) => exchange::DeleteOk::ID,
            Self::ExchangeBind(_) => exchange::Bind::ID,
            Self::ExchangeBindOk(_) => exchange::BindOk::ID,
            Self::ExchangeUnbind(_) => exchange::Unbind::ID,
            Self::ExchangeUnbindOk(_) => exchange::UnbindOk::ID,
            Self::QueueDeclare(_) => queue::Declare::ID,
            Self::QueueDeclareOk(_) => queue::DeclareOk::ID,
            Self::QueueBind(_) => queue::Bind::ID,
            Self::QueueBindOk(_) => queue::BindOk::ID,
            Self::QueuePurge(_) => queue::Purge::ID,
            Self::QueuePurgeOk(_) => queue::PurgeOk::ID,
            Self::QueueDelete(_) => queue::Delete::ID,
            Self::QueueDeleteOk(_) => queue::DeleteOk::ID,
            Self::QueueUnbind(_) => queue::Unbind::ID,
            Self::QueueUnbindOk(_) => queue::UnbindOk::ID,
            Self::BasicQos(_) => basic::Qos::ID,
            Self::BasicQosOk(_) => basic::QosOk::ID,
            Self::BasicConsume(_) => basic::Consume::ID,
            Self::BasicConsumeOk(_) => basic::ConsumeOk::ID,
            Self::BasicCancel(_) => basic::Cancel::ID,
            Self::BasicCancelOk(_) => basic::CancelOk::ID,
            Self::BasicPublish(_) => basic::Publish::ID,
            Self::BasicReturn(_) => basic::Return::ID,
            Self::BasicDeliver(_) => basic::Deliver::ID,
            Self::BasicGet(_) => basic::Get::ID,
            Self::BasicGetOk(_) => basic::GetOk::ID,
            Self::BasicGetEmpty(_) => basic::GetEmpty::ID,
            Self::BasicAck(_) => basic::Ack::ID,
            Self::BasicReject(_) => basic::Reject::ID,
            Self::BasicRecoverAsync(_) => basic::RecoverAsync::ID,
            Self::BasicRecover(_) => basic::Recover::ID,
            Self::BasicRecoverOk(_) => basic::RecoverOk::ID,
            Self::BasicNack(_) => basic::Nack::ID,
            Self::ConfirmSelect(_) => confirm::Select::ID,
            Self::ConfirmSelectOk(_) => confirm::SelectOk::ID,
            Self::TxSelect(_) => tx::Select::ID,
            Self::TxSelectOk(_) => tx::SelectOk::ID,
            Self::TxCommit(_) => tx::Commit::ID,
            Self::TxCommitOk(_) => tx::CommitOk::ID,
            Self::TxRollback(_) => tx::Rollback::ID,
            Self::TxRollbackOk(_) => tx::RollbackOk::ID,
        }
    }

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        match self {
            Self::ConnectionStart(method) => method.encode(channel, out),
            Self::ConnectionStartOk(method) => method.encode(channel, out),
            Self::ConnectionSecure(method) => method.encode(channel, out),
            Self::ConnectionSecureOk(method) => method.encode(channel, out),
            Self::ConnectionTune(method) => method.encode(channel, out),
            Self::ConnectionTuneOk(method) => method.encode(channel, out),
            Self::ConnectionOpen(method) => method.encode(channel, out),
            Self::ConnectionOpenOk(method) => method.encode(channel, out),
            Self::ConnectionClose(method) => method.encode(channel, out),
            Self::ConnectionCloseOk(method) => method.encode(channel, out),
            Self::ConnectionBlocked(method) => method.encode(channel, out),
            Self::ConnectionUnblocked(method) => method.encode(channel, out),
            Self::ConnectionUpdateSecret(method) => method.encode(channel, out),
            Self::ConnectionUpdateSecretOk(method) => method.encode(channel, out),
            Self::ChannelOpen(method) => method.encode(channel, out),
            Self::ChannelOpenOk(method) => method.encode(channel, out),
            Self::ChannelFlow(method) => method.encode(channel, out),
            Self::ChannelFlowOk(method) => method.encode(channel, out),
            Self::ChannelClose(method) => method.encode(channel, out),
            Self::ChannelCloseOk(method) => method.encode(channel, out),
            Self::AccessRequest(method) => method.encode(channel, out),
            Self::AccessRequestOk(method) => method.encode(channel, out),
            Self::ExchangeDeclare(method) => method.encode(channel, out),
            Self::ExchangeDeclareOk(method) => method.encode(channel, out),
            Self::ExchangeDelete(method) => method.encode(channel, out),
            Self::ExchangeDeleteOk(method) => method.encode(channel, out),
            Self::ExchangeBind(method) => method.encode(channel, out),
            Self::ExchangeBindOk(method) => method.encode(channel, out),
            Self::ExchangeUnbind(method) => method.encode(channel, out),
            Self::ExchangeUnbindOk(method) => method.encode(channel, out),
            Self::QueueDeclare(method) => method.encode(channel, out),
            Self::QueueDeclareOk(method) => method.encode(channel, out),
            Self::QueueBind(method) => method.encode(channel, out),
            Self::QueueBindOk(method) => method.encode(channel, out),
            Self::QueuePurge(method) => method.encode(channel, out),
            Self::QueuePurgeOk(method) => method.encode(channel, out),
            Self::QueueDelete(method) => method.encode(channel, out),
            Self::QueueDeleteOk(method) => method.encode(channel, out),
            Self::QueueUnbind(method) => method.encode(channel, out),
            Self::QueueUnbindOk(method) => method.encode(channel, out),
            Self::BasicQos(method) => method.encode(channel, out),
            Self::BasicQosOk(method) => method.encode(channel, out),
            Self::BasicConsume(method) => method.encode(channel, out),
            Self::BasicConsumeOk(method) => method.encode(channel, out),
            Self::BasicCancel(method) => method.encode(channel, out),
            Self::BasicCancelOk(method) => method.encode(channel, out),
            Self::BasicPublish(method) => method.encode(channel, out),
            Self::BasicReturn(method) => method.encode(channel, out),
            Self::BasicDeliver(method) => method.encode(channel, out),
            Self::BasicGet(method) => method.encode(channel, out),
            Self::BasicGetOk(method) => method.encode(channel, out),
            Self::BasicGetEmpty(method) => method.encode(channel, out),
            Self::BasicAck(method) => method.encode(channel, out),
            Self::BasicReject(method) => method.encode(channel, out),
            Self::BasicRecoverAsync(method) => method.encode(channel, out),
            Self::BasicRecover(method) => method.encode(channel, out),
            Self::BasicRecoverOk(method) => method.encode(channel, out),
            Self::BasicNack(method) => method.encode(channel, out),
            Self::ConfirmSelect(method) => method.encode(channel, out),
            Self::ConfirmSelectOk(method) => method.encode(channel, out),
            Self::TxSelect(method) => method.encode(channel, out),
            Self::TxSelectOk(method) => method.encode(channel, out),
            Self::TxCommit(method) => method.encode(channel, out),
            Self::TxCommitOk(method) => method.encode(channel, out),
            Self::TxRollback(method) => method.encode(channel, out),
            Self::TxRollbackOk(method) => method.encode(channel, out),
        }
    }
}

impl MethodId {
    /// Every method, by class and number.
    pub const ALL: &'static [Self] = &[
        connection::Start::ID,
        connection::StartOk::ID,
        connection::Secure::ID,
        connection::SecureOk::ID,
        connection::Tune::ID,
        connection::TuneOk::ID,
        connection::Open::ID,
        connection::OpenOk::ID,
        connection::Close::ID,
        connection::CloseOk::ID,
        connection::Blocked::ID,
        connection::Unblocked::ID,
        connection::UpdateSecret::ID,
        connection::UpdateSecretOk::ID,
        channel::Open::ID,
        channel::OpenOk::ID,
        channel::Flow::ID,
        channel::FlowOk::ID,
        channel::Close::ID,
        channel::CloseOk::ID,
        access::Request::ID,
        access::RequestOk::ID,
        exchange::Declare::ID,
        exchange::DeclareOk::ID,
        exchange::Delete::ID,
        exchange::DeleteOk::ID,
        exchange::Bind::ID,
        exchange::BindOk::ID,
        exchange::Unbind::ID,
        exchange::UnbindOk::ID,
        queue::Declare::ID,
        queue::DeclareOk::ID,
        queue::Bind::ID,
        queue::BindOk::ID,
        queue::Purge::ID,
        queue::PurgeOk::ID,
        queue::Delete::ID,
        queue::DeleteOk::ID,
        queue::Unbind::ID,
        queue::UnbindOk::ID,
        basic::Qos::ID,
        basic::QosOk::ID,
        basic::Consume::ID,
        basic::ConsumeOk::ID,
        basic::Cancel::ID,
        basic::CancelOk::ID,
        basic::Publish::ID,
        basic::Return::ID,
        basic::Deliver::ID,
        basic::Get::ID,
        basic::GetOk::ID,
        basic::GetEmpty::ID,
        basic::Ack::ID,
        basic::Reject::ID,
        basic::RecoverAsync::ID,
        basic::Recover::ID,
        basic::RecoverOk::ID,
        basic::Nack::ID,
        confirm::Select::ID,
        confirm::SelectOk::ID,
        tx::Select::ID,
        tx::SelectOk::ID,
        tx::Commit::ID,
        tx::CommitOk::ID,
        tx::Rollback::ID,
        tx::RollbackOk::ID,
    ];

    /// The method's name, such as `queue.declare`; `None` when there is no such method.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            connection::Start::ID => "connection.start",
            connection::StartOk::ID => "connection.start-ok",
            connection::Secure::ID => "connection.secure",
            connection::SecureOk::ID => "connection.secure-ok",
            connection::Tune::ID => "connection.tune",
            connection::TuneOk::ID => "connection.tune-ok",
            connection::Open::ID => "connection.open",
            connection::OpenOk::ID => "connection.open-ok",
            connection::Close::ID => "connection.close",
            connection::CloseOk::ID => "connection.close-ok",
            connection::Blocked::ID => "connection.blocked",
            connection::Unblocked::ID => "connection.unblocked",
            connection::UpdateSecret::ID => "connection.update-secret",
            connection::UpdateSecretOk::ID => "connection.update-secret-ok",
            channel::Open::ID => "channel.open",
            channel::OpenOk::ID => "channel.open-ok",
            channel::Flow::ID => "channel.flow",
            channel::FlowOk::ID => "channel.flow-ok",
            channel::Close::ID => "channel.close",
            channel::CloseOk::ID => "channel.close-ok",
            access::Request::ID => "access.request",
            access::RequestOk::ID => "access.request-ok",
            exchange::Declare::ID => "exchange.declare",
            exchange::DeclareOk::ID => "exchange.declare-ok",
            exchange::Delete::ID => "exchange.delete",
            exchange::DeleteOk::ID => "exchange.delete-ok",
            exchange::Bind::ID => "exchange.bind",
            exchange::BindOk::ID => "exchange.bind-ok",
            exchange::Unbind::ID => "exchange.unbind",
            exchange::UnbindOk::ID => "exchange.unbind-ok",
            queue::Declare::ID => "queue.declare",
            queue::DeclareOk::ID => "queue.declare-ok",
            queue::Bind::ID => "queue.bind",
            queue::BindOk::ID => "queue.bind-ok",
            queue::Purge::ID => "queue.purge",
            queue::PurgeOk::ID => "queue.purge-ok",
            queue::Delete::ID => "queue.delete",
            queue::DeleteOk::ID => "queue.delete-ok",
            queue::Unbind::ID => "queue.unbind",
            queue::UnbindOk::ID => "queue.unbind-ok",
            basic::Qos::ID => "basic.qos",
            basic::QosOk::ID => "basic.qos-ok",
            basic::Consume::ID => "basic.consume",
            basic::ConsumeOk::ID => "basic.consume-ok",
            basic::Cancel::ID => "basic.cancel",
            basic::CancelOk::ID => "basic.cancel-ok",
            basic::Publish::ID => "basic.publish",
            basic::Return::ID => "basic.return",
            basic::Deliver::ID => "basic.deliver",
            basic::Get::ID => "basic.get",
            basic::GetOk::ID => "basic.get-ok",
            basic::GetEmpty::ID => "basic.get-empty",
            basic::Ack::ID => "basic.ack",
            basic::Reject::ID => "basic.reject",
            basic::RecoverAsync::ID => "basic.recover-async",
            basic::Recover::ID => "basic.recover",
            basic::RecoverOk::ID => "basic.recover-ok",
            basic::Nack::ID => "basic.nack",
            confirm::Select::ID => "confirm.select",
            confirm::SelectOk::ID => "confirm.select-ok",
            tx::Select::ID => "tx.select",
            tx::SelectOk::ID => "tx.select-ok",
            tx::Commit::ID => "tx.commit",
            tx::CommitOk::ID => "tx.commit-ok",
            tx::Rollback::ID => "tx.rollback",
            tx::RollbackOk::ID => "tx.rollback-ok",

            _ => return None,
        })
    }
}
