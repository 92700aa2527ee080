import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "../node_modules/.logic/logic/json.js";

test("numbers keep every digit", () => {
  const row = (value) => parse(`{"n":${value}}`).n;
  for (const digits of ["18446744073709551615", "9007199254740993", "-9223372036854775808", "12345678901234567890.123456"]) {
    assert.equal(row(digits), digits);
  }
  assert.deepEqual(parse("[1,[9007199254740993],{}]"), [1, ["9007199254740993"], {}]);
});

test("other numbers and digits in texts are unchanged", () => {
  const texts = [
    "9007199254740991", "0.1234567890123456", "1.7976931348623157e308", "9.223372036854776e18", "1234567890123456.0",
    '"9007199254740993"', '"a \\"9007199254740993\\" \\\\"', '{"9007199254740993":[1234567890123456,"x"]}', "null",
  ];
  for (const text of texts) assert.deepEqual(parse(text), JSON.parse(text), text);
  assert.throws(() => parse('{"n": 9007199254740993'), SyntaxError);
});
