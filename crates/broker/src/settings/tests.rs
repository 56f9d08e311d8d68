//! Which arguments are refused, and in which words.
