//! Ends the process groups of a program that was killed before it could do so itself.
