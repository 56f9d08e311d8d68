//! Definitions go out and come in.

use super::*;
