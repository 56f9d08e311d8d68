//! Facts come back as they went.
