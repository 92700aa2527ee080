//! Writing to Lance: data files, commits, indices, quarantine.
