//! Every method, written and read back.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::assert_round_trip;
use super::{Method, access, basic, channel, confirm, connection, exchange, queue, tx};
use crate::table::tests::any_table;

#[test]
fn methods_without_arguments() {
    assert_round_trip(&Method::ConnectionOpenOk(connection::OpenOk));
    assert_round_trip(&Method::ConnectionCloseOk(connection::CloseOk));
    assert_round_trip(&Method::ConnectionUnblocked(connection::Unblocked));
    assert_round_trip(&Method::ConnectionUpdateSecretOk(connection::UpdateSecretOk));
    assert_round_trip(&Method::ChannelOpen(channel::Open));
    assert_round_trip(&Method::ChannelOpenOk(channel::OpenOk));
    assert_round_trip(&Method::ChannelCloseOk(channel::CloseOk));
    assert_round_trip(&Method::ExchangeDeclareOk(exchange::DeclareOk));
    assert_round_trip(&Method::ExchangeDeleteOk(exchange::DeleteOk));
    assert_round_trip(&Method::ExchangeBindOk(exchange::BindOk));
    assert_round_trip(&Method::ExchangeUnbindOk(exchange::UnbindOk));
    assert_round_trip(&Method::QueueBindOk(queue::BindOk));
    assert_round_trip(&Method::QueueUnbindOk(queue::UnbindOk));
    assert_round_trip(&Method::BasicQosOk(basic::QosOk));
    assert_round_trip(&Method::BasicGetEmpty(basic::GetEmpty));
    assert_round_trip(&Method::BasicRecoverOk(basic::RecoverOk));
    assert_round_trip(&Method::ConfirmSelectOk(confirm::SelectOk));
    assert_round_trip(&Method::TxSelect(tx::Select));
    assert_round_trip(&Method::TxSelectOk(tx::SelectOk));
    assert_round_trip(&Method::TxCommit(tx::Commit));
    assert_round_trip(&Method::TxCommitOk(tx::CommitOk));
    assert_round_trip(&Method::TxRollback(tx::Rollback));
    assert_round_trip(&Method::TxRollbackOk(tx::RollbackOk));
}

proptest! {
#![proptest_config(ProptestConfig::with_cases(64))]

#[test]
fn connection_start(
version_major in any::<u8>(),
version_minor in any::<u8>(),
server_properties in any_table(),
mechanisms in vec(any::<u8>(), 0..300),
locales in vec(any::<u8>(), 0..300),
) {
let method = connection::Start {
version_major,
version_minor,
server_properties,
mechanisms: &mechanisms,
locales: &locales,
};
assert_round_trip(&Method::ConnectionStart(method));
}

#[test]
fn connection_start_ok(
client_properties in any_table(),
mechanism in ".{0,40}",
response in vec(any::<u8>(), 0..300),
locale in ".{0,40}",
) {
let method = connection::StartOk {
client_properties,
mechanism: &mechanism,
response: &response,
locale: &locale,
};
assert_round_trip(&Method::ConnectionStartOk(method));
}

#[test]
fn connection_secure(
challenge in vec(any::<u8>(), 0..300),
) {
let method = connection::Secure {
challenge: &challenge,
};
assert_round_trip(&Method::ConnectionSecure(method));
}

#[test]
fn connection_secure_ok(
response in vec(any::<u8>(), 0..300),
) {
let method = connection::SecureOk {
response: &response,
};
assert_round_trip(&Method::ConnectionSecureOk(method));
}

#[test]
fn connection_tune(
channel_max in any::<u16>(),
frame_max in any::<u32>(),
heartbeat in any::<u16>(),
) {
let method = connection::Tune {
channel_max,
frame_max,
heartbeat,
};
assert_round_trip(&Method::ConnectionTune(method));
}

#[test]
fn connection_tune_ok(
channel_max in any::<u16>(),
frame_max in any::<u32>(),
heartbeat in any::<u16>(),
) {
let method = connection::TuneOk {
channel_max,
frame_max,
heartbeat,
};
assert_round_trip(&Method::ConnectionTuneOk(method));
}

#[test]
fn connection_open(
vhost in ".{0,40}",
) {
let method = connection::Open {
vhost: &vhost,
};
assert_round_trip(&Method::ConnectionOpen(method));
}

#[test]
fn connection_close(
reply_code in any::<u16>(),
reply_text in ".{0,40}",
class_id in any::<u16>(),
method_id in any::<u16>(),
) {
let method = connection::Close {
reply_code,
reply_text: &reply_text,
class_id,
method_id,
};
assert_round_trip(&Method::ConnectionClose(method));
}

#[test]
fn connection_blocked(
reason in ".{0,40}",
) {
let method = connection::Blocked {
reason: &reason,
};
assert_round_trip(&Method::ConnectionBlocked(method));
}

#[test]
fn connection_update_secret(
new_secret in vec(any::<u8>(), 0..300),
reason in ".{0,40}",
) {
let method = connection::UpdateSecret {
new_secret: &new_secret,
reason: &reason,
};
assert_round_trip(&Method::ConnectionUpdateSecret(method));
}

#[test]
fn channel_flow(
active in any::<bool>(),
) {
let method = channel::Flow {
active,
};
assert_round_trip(&Method::ChannelFlow(method));
}

#[test]
fn channel_flow_ok(
active in any::<bool>(),
) {
let method = channel::FlowOk {
active,
};
assert_round_trip(&Method::ChannelFlowOk(method));
}

#[test]
fn channel_close(
reply_code in any::<u16>(),
reply_text in ".{0,40}",
class_id in any::<u16>(),
method_id in any::<u16>(),
) {
let method = channel::Close {
reply_code,
reply_text: &reply_text,
class_id,
method_id,
};
assert_round_trip(&Method::ChannelClose(method));
}

#[test]
fn access_request(
realm in ".{0,40}",
exclusive in any::<bool>(),
passive in any::<bool>(),
active in any::<bool>(),
write in any::<bool>(),
read in any::<bool>(),
) {
let method = access::Request {
realm: &realm,
exclusive,
passive,
active,
write,
read,
};
assert_round_trip(&Method::AccessRequest(method));
}

#[test]
fn access_request_ok(
ticket in any::<u16>(),
) {
let method = access::RequestOk {
ticket,
};
assert_round_trip(&Method::AccessRequestOk(method));
}

#[test]
fn exchange_declare(
exchange in ".{0,40}",
kind in ".{0,40}",
passive in any::<bool>(),
durable in any::<bool>(),
auto_delete in any::<bool>(),
internal in any::<bool>(),
nowait in any::<bool>(),
arguments in any_table(),
) {
let method = exchange::Declare {
exchange: &exchange,
kind: &kind,
passive,
durable,
auto_delete,
internal,
nowait,
arguments,
};
assert_round_trip(&Method::ExchangeDeclare(method));
}

#[test]
fn exchange_delete(
exchange in ".{0,40}",
if_unused in any::<bool>(),
nowait in any::<bool>(),
) {
let method = exchange::Delete {
exchange: &exchange,
if_unused,
nowait,
};
assert_round_trip(&Method::ExchangeDelete(method));
}

#[test]
fn exchange_bind(
destination in ".{0,40}",
source in ".{0,40}",
routing_key in ".{0,40}",
nowait in any::<bool>(),
arguments in any_table(),
) {
let method = exchange::Bind {
destination: &destination,
source: &source,
routing_key: &routing_key,
nowait,
arguments,
};
assert_round_trip(&Method::ExchangeBind(method));
}

#[test]
fn exchange_unbind(
destination in ".{0,40}",
source in ".{0,40}",
routing_key in ".{0,40}",
nowait in any::<bool>(),
arguments in any_table(),
) {
let method = exchange::Unbind {
destination: &destination,
source: &source,
routing_key: &routing_key,
nowait,
arguments,
};
assert_round_trip(&Method::ExchangeUnbind(method));
}

#[test]
fn queue_declare(
queue in ".{0,40}",
passive in any::<bool>(),
durable in any::<bool>(),
exclusive in any::<bool>(),
auto_delete in any::<bool>(),
nowait in any::<bool>(),
arguments in any_table(),
) {
let method = queue::Declare {
queue: &queue,
passive,
durable,
exclusive,
auto_delete,
nowait,
arguments,
};
assert_round_trip(&Method::QueueDeclare(method));
}

#[test]
fn queue_declare_ok(
queue in ".{0,40}",
message_count in any::<u32>(),
consumer_count in any::<u32>(),
) {
let method = queue::DeclareOk {
queue: &queue,
message_count,
consumer_count,
};
assert_round_trip(&Method::QueueDeclareOk(method));
}

#[test]
fn queue_bind(
queue in ".{0,40}",
exchange in ".{0,40}",
routing_key in ".{0,40}",
nowait in any::<bool>(),
arguments in any_table(),
) {
let method = queue::Bind {
queue: &queue,
exchange: &exchange,
routing_key: &routing_key,
nowait,
arguments,
};
assert_round_trip(&Method::QueueBind(method));
}

#[test]
fn queue_purge(
queue in ".{0,40}",
nowait in any::<bool>(),
) {
let method = queue::Purge {
queue: &queue,
nowait,
};
assert_round_trip(&Method::QueuePurge(method));
}

#[test]
fn queue_purge_ok(
message_count in any::<u32>(),
) {
let method = queue::PurgeOk {
message_count,
};
assert_round_trip(&Method::QueuePurgeOk(method));
}

#[test]
fn queue_delete(
queue in ".{0,40}",
if_unused in any::<bool>(),
if_empty in any::<bool>(),
nowait in any::<bool>(),
) {
let method = queue::Delete {
queue: &queue,
if_unused,
if_empty,
nowait,
};
assert_round_trip(&Method::QueueDelete(method));
}

#[test]
fn queue_delete_ok(
message_count in any::<u32>(),
) {
let method = queue::DeleteOk {
message_count,
};
assert_round_trip(&Method::QueueDeleteOk(method));
}

#[test]
fn queue_unbind(
queue in ".{0,40}",
exchange in ".{0,40}",
routing_key in ".{0,40}",
arguments in any_table(),
) {
let method = queue::Unbind {
queue: &queue,
exchange: &exchange,
routing_key: &routing_key,
arguments,
};
assert_round_trip(&Method::QueueUnbind(method));
}

#[test]
fn basic_qos(
prefetch_size in any::<u32>(),
prefetch_count in any::<u16>(),
global in any::<bool>(),
) {
let method = basic::Qos {
prefetch_size,
prefetch_count,
global,
};
assert_round_trip(&Method::BasicQos(method));
}

#[test]
fn basic_consume(
queue in ".{0,40}",
consumer_tag in ".{0,40}",
no_local in any::<bool>(),
no_ack in any::<bool>(),
exclusive in any::<bool>(),
nowait in any::<bool>(),
arguments in any_table(),
) {
let method = basic::Consume {
queue: &queue,
consumer_tag: &consumer_tag,
no_local,
no_ack,
exclusive,
nowait,
arguments,
};
assert_round_trip(&Method::BasicConsume(method));
}

#[test]
fn basic_consume_ok(
consumer_tag in ".{0,40}",
) {
let method = basic::ConsumeOk {
consumer_tag: &consumer_tag,
};
assert_round_trip(&Method::BasicConsumeOk(method));
}

#[test]
fn basic_cancel(
consumer_tag in ".{0,40}",
nowait in any::<bool>(),
) {
let method = basic::Cancel {
consumer_tag: &consumer_tag,
nowait,
};
assert_round_trip(&Method::BasicCancel(method));
}

#[test]
fn basic_cancel_ok(
consumer_tag in ".{0,40}",
) {
let method = basic::CancelOk {
consumer_tag: &consumer_tag,
};
assert_round_trip(&Method::BasicCancelOk(method));
}

#[test]
fn basic_publish(
exchange in ".{0,40}",
routing_key in ".{0,40}",
mandatory in any::<bool>(),
immediate in any::<bool>(),
) {
let method = basic::Publish {
exchange: &exchange,
routing_key: &routing_key,
mandatory,
immediate,
};
assert_round_trip(&Method::BasicPublish(method));
}

#[test]
fn basic_return(
reply_code in any::<u16>(),
reply_text in ".{0,40}",
exchange in ".{0,40}",
routing_key in ".{0,40}",
) {
let method = basic::Return {
reply_code,
reply_text: &reply_text,
exchange: &exchange,
routing_key: &routing_key,
};
assert_round_trip(&Method::BasicReturn(method));
}

#[test]
fn basic_deliver(
consumer_tag in ".{0,40}",
delivery_tag in any::<u64>(),
redelivered in any::<bool>(),
exchange in ".{0,40}",
routing_key in ".{0,40}",
) {
let method = basic::Deliver {
consumer_tag: &consumer_tag,
delivery_tag,
redelivered,
exchange: &exchange,
routing_key: &routing_key,
};
assert_round_trip(&Method::BasicDeliver(method));
}

#[test]
fn basic_get(
queue in ".{0,40}",
no_ack in any::<bool>(),
) {
let method = basic::Get {
queue: &queue,
no_ack,
};
assert_round_trip(&Method::BasicGet(method));
}

#[test]
fn basic_get_ok(
delivery_tag in any::<u64>(),
redelivered in any::<bool>(),
exchange in ".{0,40}",
routing_key in ".{0,40}",
message_count in any::<u32>(),
) {
let method = basic::GetOk {
delivery_tag,
redelivered,
exchange: &exchange,
routing_key: &routing_key,
message_count,
};
assert_round_trip(&Method::BasicGetOk(method));
}

#[test]
fn basic_ack(
delivery_tag in any::<u64>(),
multiple in any::<bool>(),
) {
let method = basic::Ack {
delivery_tag,
multiple,
};
assert_round_trip(&Method::BasicAck(method));
}

#[test]
fn basic_reject(
delivery_tag in any::<u64>(),
requeue in any::<bool>(),
) {
let method = basic::Reject {
delivery_tag,
requeue,
};
assert_round_trip(&Method::BasicReject(method));
}

#[test]
fn basic_recover_async(
requeue in any::<bool>(),
) {
let method = basic::RecoverAsync {
requeue,
};
assert_round_trip(&Method::BasicRecoverAsync(method));
}

#[test]
fn basic_recover(
requeue in any::<bool>(),
) {
let method = basic::Recover {
requeue,
};
assert_round_trip(&Method::BasicRecover(method));
}

#[test]
fn basic_nack(
delivery_tag in any::<u64>(),
multiple in any::<bool>(),
requeue in any::<bool>(),
) {
let method = basic::Nack {
delivery_tag,
multiple,
requeue,
};
assert_round_trip(&Method::BasicNack(method));
}

#[test]
fn confirm_select(
nowait in any::<bool>(),
) {
let method = confirm::Select {
nowait,
};
assert_round_trip(&Method::ConfirmSelect(method));
}
}
