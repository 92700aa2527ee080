pub(crate) mod durability;
mod other_programs;
mod refusals;
