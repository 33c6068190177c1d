// Changes of JSON documents, of their text and of bytes, which know nothing of models.
#include <algorithm>
#include <cctype>

#include "mutate.h"

namespace kernelprune::fuzz {
namespace {

Tree nested(Random* random) {
  static const std::vector<size_t> kDepths = {1, 2, 14, 15, 16, 17, 64, 1000, 20000};
  const size_t depth = random->pick(kDepths);
  const bool arrays = random->chance(0.5);
  std::string text;
  for (size_t i = 0; i < depth; ++i) text += arrays ? "[" : "{\"a\":";
  text += arrays ? "" : "1";
  // Sometimes without the end: a parser that recurses has gone down all the way by then.
  if (random->chance(0.8)) text += std::string(depth, arrays ? ']' : '}');
  return Tree::scalar(text);
}

const std::string& odd_string(Random* random) {
  static const std::vector<std::string> kStrings = {"\"\"",
                                                    "\"\\u0000\"",
                                                    "\"a\\u0000b\"",
                                                    "\"\\ud800\"",
                                                    "\"\\udc00\\ud800\"",
                                                    "\"\\ud83d\\ude00\"",
                                                    "\"\\u0061\"",
                                                    "\"\\/\"",
                                                    "\"\\n\"",
                                                    "\"\\x41\"",
                                                    "\"\xff\xfe\"",
                                                    "\"\xc3\xa9\"",
                                                    "\"\xc0\x80\"",
                                                    "\"\xed\xa0\x80\"",
                                                    "\"\xf4\x90\x80\x80\"",
                                                    "\" \"",
                                                    "\"a b\"",
                                                    "\"\x7f\"",
                                                    "\"\\u007f\"",
                                                    "\"\\u0085\"",
                                                    "\"[/x]\"",
                                                    "\"\\u001b[2J\"",
                                                    "\"..\"",
                                                    "\"/\"",
                                                    "\"__metadata__\"",
                                                    "'x'",
                                                    "\"",
                                                    "\"%s%n\"",
                                                    "\"\xe2\x80\xae\""};
  return random->pick(kStrings);
}

std::string long_string(Random* random) {
  static const std::vector<size_t> kLengths = {16, 17, 64, 65, 199, 200, 201, 256, 257, 70000};
  return '"' + std::string(random->pick(kLengths), 'n') + '"';
}

}  // namespace

void change_tree(Tree* tree, Random* random) {
  const std::vector<Tree*> places = tree->places();
  if (places.empty()) return;
  Tree* place = random->pick(places);
  switch (random->below(9)) {
    case 0:
    case 1:
      *place = Tree::scalar(edge_number(random));
      break;
    case 2:
      *place = Tree::scalar(random->chance(0.7) ? odd_string(random) : long_string(random));
      break;
    case 3:
      *place = nested(random);
      break;
    case 4: {
      const Tree copy = *random->pick(places);  // by value: it may hold `place`
      *place = copy;
      break;
    }
    default: {
      std::vector<Tree*> containers = {tree};
      for (Tree* other : places) {
        if (!other->items.empty()) containers.push_back(other);
      }
      auto& items = random->pick(containers)->items;
      if (items.empty()) break;
      const size_t at = random->below(items.size());
      const size_t kind = random->below(4);
      if (kind == 0) {
        items.erase(items.begin() + static_cast<int64_t>(at));
      } else if (kind == 1) {  // a key twice, or one entry more
        const auto copy = items[at];
        items.insert(items.begin() + static_cast<int64_t>(random->below(items.size() + 1)), copy);
      } else if (kind == 2) {
        items[at].first = random->chance(0.5) ? items[at].first + "x" : random->pick(items).first;
      } else {
        std::swap(items[at], random->pick(items));
      }
    }
  }
}

void change_header(Tree* header, Random* random) {
  std::vector<Tree*> entries;
  for (auto& [name, entry] : header->items) {
    if (name != "__metadata__") entries.push_back(&entry);
  }
  if (entries.empty() || random->chance(0.4)) return change_tree(header, random);
  Tree* entry = random->pick(entries);
  Tree* other = random->pick(entries);
  for (const char* key : {"data_offsets", "shape", "dtype"}) {
    Tree* own = entry->find(key);
    if (own == nullptr || random->chance(0.5)) continue;
    if (random->chance(0.3) && other->find(key) != nullptr) {
      const Tree copy = *other->find(key);  // overlapping, or of another tensor
      *own = copy;
    } else if (own->kind == Tree::Kind::kScalar) {
      static const std::vector<std::string> kTypes = {"U16", "U32",  "F32", "F16", "I32",
                                                      "U64", "BOOL", "f32", "",    "F64"};
      *own = Tree::string(random->pick(kTypes));
    } else if (own->items.empty()) {
      own->add(Tree::scalar(edge_number(random)));
    } else {
      const int64_t by = random->within(-2, 2) * random->within(1, 4);
      for (auto& [name, number] : own->items) {
        int64_t value = 0;
        if (number.as_integer(&value)) number = Tree::scalar(std::to_string(value + by));
      }
      if (random->chance(0.3)) random->pick(own->items).second = Tree::scalar(edge_number(random));
    }
    return;
  }
  std::swap(*entry, *other);
}

void change_text(std::string* text, Random* random) {
  const size_t at = random->below(text->size());
  const size_t length = random->below(random->chance(0.8) ? 8 : 400);
  switch (random->below(7)) {
    case 0: {  // a number
      size_t begin = at;
      while (begin < text->size() &&
             std::isdigit(static_cast<unsigned char>((*text)[begin])) == 0) {
        ++begin;
      }
      size_t end = begin;
      while (end < text->size() && std::isdigit(static_cast<unsigned char>((*text)[end])) != 0) {
        ++end;
      }
      text->replace(begin, end - begin, edge_number(random));
      break;
    }
    case 1: {
      static const std::string kCharacters = "{}[]:,\"\\ \n\t0-9.eE+/'\x01\x7f\xff";
      text->insert(at, 1, kCharacters[random->below(kCharacters.size())]);
      break;
    }
    case 2:
      text->erase(at, length);
      break;
    case 3:
      text->insert(at, text->substr(random->below(text->size()), length));
      break;
    case 4:
      text->insert(at, random->chance(0.5) ? odd_string(random) : nested(random).text);
      break;
    case 5: {  // white space between tokens, which changes nothing
      const size_t comma = text->find(',', at);
      if (comma != std::string::npos) text->insert(comma + 1, random->below(100), ' ');
      break;
    }
    default:
      text->resize(at);
  }
}

void change_bytes(std::string* file, const std::string& other, Random* random) {
  if (file->empty()) return;
  const size_t at = random->below(file->size());
  switch (random->below(7)) {
    case 0:
      (*file)[at] = static_cast<char>((*file)[at] ^ (1 << random->below(8)));
      break;
    case 1:
      for (size_t i = at; i < std::min(file->size(), at + 1 + random->below(8)); ++i) {
        (*file)[i] = static_cast<char>(random->bits());
      }
      break;
    case 2:
      file->resize(at);
      break;
    case 3:
      file->append(1 + random->below(100), '\0');
      break;
    case 4:
      file->erase(at, 1 + random->below(16));
      break;
    case 5:
      file->insert(at, file->substr(random->below(file->size()), 1 + random->below(64)));
      break;
    default:
      file->replace(at, std::string::npos, other.substr(random->below(other.size())));
  }
}

}  // namespace kernelprune::fuzz
