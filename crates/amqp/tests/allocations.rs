//! The path of a message allocates nothing: split, read, check, and write it out again.
//!
//! A test program of its own, since it counts what its thread asks of the allocator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use amqp::method::basic;
use amqp::{ChannelId, ContentHeader, Method, Properties, Table, content, frame};
use bytes::BytesMut;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; it only counts and passes on")]
// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const CHANNEL: ChannelId = ChannelId(1);
const FRAME_MAX: usize = 4096;
const PERSISTENT_WITH_HEADERS: &[u8] = b"\x30\x00\x00\x00\x00\x08\x02idS\x00\x00\x00\x00\x02";

#[test]
fn publishing_and_delivering_allocate_nothing() {
    let mut input = BytesMut::new();
    let publish = basic::Publish { exchange: "ex", routing_key: "key", ..Default::default() };
    publish.encode(CHANNEL, &mut input);
    content::encode_content(CHANNEL, PERSISTENT_WITH_HEADERS, &[7; 9000], FRAME_MAX, &mut input);
    basic::Ack { delivery_tag: 1, multiple: true }.encode(CHANNEL, &mut input);

    let mut out = BytesMut::with_capacity(16 << 10);
    let mut frames = 0;
    let count = allocations(|| {
        let mut rest = &input[..];
        while let Some((frame, taken)) = frame::decode(rest, FRAME_MAX).unwrap() {
            match frame.kind {
                frame::FrameKind::Method => {
                    Method::decode(frame.payload).unwrap();
                }
                frame::FrameKind::Header => {
                    let header = ContentHeader::decode(frame.payload).unwrap();
                    let properties = Properties::parse(header.properties).unwrap();
                    assert_eq!(properties.delivery_mode(), Some(2));
                }
                frame::FrameKind::Body | frame::FrameKind::Heartbeat => {}
            }
            frames += 1;
            rest = &rest[taken..];
        }
        let deliver = basic::Deliver { consumer_tag: "tag", delivery_tag: 1, ..Default::default() };
        deliver.encode(CHANNEL, &mut out);
        content::encode_content(CHANNEL, PERSISTENT_WITH_HEADERS, &[7; 9000], FRAME_MAX, &mut out);
    });
    assert_eq!(frames, 6);
    assert_eq!(count, 0);
}

#[test]
fn the_count_would_see_an_allocation() {
    assert_ne!(allocations(|| drop(Table::from_iter([("a", 1)]))), 0);
}
