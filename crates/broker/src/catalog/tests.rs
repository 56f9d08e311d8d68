//! Every request, its answer and its words.
