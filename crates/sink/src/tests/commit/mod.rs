mod concurrent_writers;
mod killed;
mod protocol;
mod replace;
