import assert from "node:assert/strict";
import { test } from "node:test";
import { pieces, utf16Offsets } from "../node_modules/.logic/logic/spans.js";
import { fold, matches, words } from "../node_modules/.logic/logic/words.js";

const span = (label, start, end) => ({ label, score: 0.9, start, end });
const marked = (text, spans, ranges) =>
  pieces(text, spans, ranges).map(({ text, spans, match }) => [text, spans.map(({ label }) => label).join(">"), match]);

test("offsets count scalar values, not UTF-16 units", () => {
  const text = "🇫🇷 Zoë lives in 𝔓aris";
  const start = [...text].indexOf("𝔓");
  const [before, city] = pieces(text, [span("LOC", start, start + 5)]);
  assert.equal(before.text, "🇫🇷 Zoë lives in ");
  assert.equal(city.text, "𝔓aris");
  const offset = utf16Offsets("a😀b");
  assert.deepEqual([0, 1, 2, 3, 99, -1].map(offset), [0, 1, 3, 4, 4, 0]);
});

test("the pieces of any text join to the text", () => {
  for (const text of ["", "plain", "สิทธิในการศึกษา", "الحق في التعليم", "👩‍👩‍👧 and 𠮷野家", "e\u0301"]) {
    const length = [...text].length;
    for (let start = 0; start <= length; start += 1) {
      for (let end = start; end <= length; end += 1) {
        const joined = pieces(text, [span("A", start, end), span("B", 1, 2)], [{ start: 0, end: 1 }]).map((piece) => piece.text).join("");
        assert.equal(joined, text);
      }
    }
  }
});

test("nested and crossing spans keep their parts", () => {
  assert.deepEqual(marked("abcdef", [span("IN", 1, 2), span("OUT", 0, 4)]), [
    ["a", "OUT", false], ["b", "OUT>IN", false], ["cd", "OUT", false], ["ef", "", false],
  ]);
  const crossing = pieces("abcdef", [span("ONE", 0, 3), span("TWO", 2, 5)]);
  assert.deepEqual(crossing.map(({ text, ends }) => [text, ends.map(({ label }) => label)]), [
    ["ab", []], ["c", ["ONE"]], ["de", ["TWO"]], ["f", []],
  ]);
});

test("spans outside the text, empty or reversed are ignored", () => {
  assert.deepEqual(marked("abc", [span("A", 7, 9), span("B", 1, 1), span("C", 2, 1), span("D", 2, 50)]), [
    ["ab", "", false], ["c", "D", false],
  ]);
});

const found = (text, query) => matches(text, query).map(({ start, end }) => text.slice(start, end));

test("words match in any script, as the full-text index compares them", () => {
  assert.deepEqual(found("Toute personne a droit à l’éducation.", "EDUCATION"), ["éducation"]);
  assert.deepEqual(found("human rights and a right", "right"), ["right"]);
  assert.deepEqual(found("العلم والتعليم في المدارس", "في التعليم"), []);
  assert.deepEqual(found("الحق في التعليم", "حق التعليم"), ["التعليم"]);
  assert.deepEqual(found("ทุกคนมีสิทธิในการศึกษา", "การศึกษา"), ["การศึกษา"]);
  assert.deepEqual(found("the art of the deal", "the art"), ["the", "art", "the"]);
  assert.deepEqual(found("nothing", ""), []);
});

test("a word is marked however it is written", () => {
  for (const [text, query, ...marks] of [
    ["Η Ελλάδα, ὁδὸς", "ΕΛΛΑΔΑ ΟΔΟΣ", "Ελλάδα", "ὁδὸς"],
    ["İstanbul, ışık", "istanbul IŞIK", "İstanbul", "ışık"],
    ["Зелёная ёлка, за\u0301мок", "елка зеленая замок", "Зелёная", "ёлка", "за\u0301мок"],
    ["мой дом", "мои"],
    ["Đà Nẵng", "nang", "Nẵng"],
    ["Das Mu\u0308nchner Rathaus", "Münchner", "Mu\u0308nchner"],
    ["Die Straße nach Łódź", "strasse LODZ", "Straße", "Łódź"],
    ["كَتَبَ الطَّالِبُ أحمد", "كتب احمد", "أحمد"],
    ["كَتَبَ الطَّالِبُ", "كتب", "كَتَبَ"],
    ["می\u200cخواهم", "میخواهم", "می\u200cخواهم"],
    ["בְּרֵאשִׁית צה״ל", 'בראשית', "בְּרֵאשִׁית"],
    ["חיילי צה״ל", 'צה"ל', "צה״ל"],
    ["ﾃｽﾄ ＡＢＣ９２３", "テスト abc923", "ﾃｽﾄ", "ＡＢＣ９２３"],
    ["한국어 문서".normalize("NFD"), "한국어", "한국어".normalize("NFD")],
    ["സ്ഥാപനങ്ങളിൽ", "സ്ഥാപനങ്ങളില\u0d4d\u200d", "സ്ഥാപനങ്ങളിൽ"],
    ["हिन्दी की प्रक्रिया", "प्रक्रिया", "प्रक्रिया"],
    ["Les droits de l'homme", "l’homme", "homme"],
    ["Don’t touch Anna’s e-mail", "anna", "Anna"],
    ["Моє сім’я", "сім'я", "сім’я"],
    ["Oʻzbekiston", "O'zbekiston", "zbekiston"],
    ["La col·lecció", "collecció", "col·lecció"],
    ["A foot\u00adnote¹", "footnote", "foot\u00adnote"],
    ["example.com/foo_bar", "example", "example"],
    ["۱۳۹۹", "1399", "۱۳۹۹"],
    ["Ի՞նչ է", "ինչ", "Ի՞նչ"],
  ]) {
    assert.deepEqual(found(text, query), marks, `${query} in ${text}`);
  }
});

test("short words are marked only when the query has no longer one", () => {
  const text = "the right to rest";
  assert.deepEqual(matches(text, "the right to").map(({ start, end }) => text.slice(start, end)), ["right"]);
  assert.deepEqual(matches(text, "to").map(({ start, end }) => text.slice(start, end)), ["to"]);
});

test("folding removes case and accents but no letters", () => {
  assert.equal(fold("Éducation"), "education");
  assert.deepEqual(words("to be, or").map(({ word }) => word), ["to", "be", "or"]);
});
