#include "tree.h"

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>

namespace kernelprune::fuzz {
namespace {

class Parser {
 public:
  explicit Parser(const std::string& json) : json_(json) {}

  Tree value() {
    const char first = next();
    if (first == '{' || first == '[') return container(first);
    const size_t begin = at_;
    if (first == '"') return Tree::scalar(quoted());
    while (at_ < json_.size() && std::string("{}[]:, \n").find(json_[at_]) == std::string::npos) {
      ++at_;
    }
    if (begin == at_) throw std::runtime_error("a seed file is not valid JSON");
    return Tree::scalar(json_.substr(begin, at_ - begin));
  }

 private:
  char next() {
    while (at_ < json_.size() && std::isspace(static_cast<unsigned char>(json_[at_])) != 0) ++at_;
    if (at_ == json_.size()) throw std::runtime_error("a seed file's JSON is cut off");
    return json_[at_];
  }

  std::string quoted() {
    const size_t begin = at_++;
    while (at_ < json_.size() && json_[at_] != '"') at_ += json_[at_] == '\\' ? 2 : 1;
    return json_.substr(begin, ++at_ - begin);
  }

  Tree container(char open) {
    const char close = open == '{' ? '}' : ']';
    Tree tree = open == '{' ? Tree::object() : Tree::array();
    for (++at_; next() != close;) {
      if (json_[at_] == ',') {
        ++at_;
        continue;
      }
      std::string key;
      if (open == '{') {
        key = Tree::scalar(quoted()).plain();
        if (next() == ':') ++at_;
      }
      tree.items.emplace_back(key, value());
    }
    ++at_;
    return tree;
  }

  const std::string& json_;
  size_t at_ = 0;
};

}  // namespace

Tree Tree::numbers(const std::vector<int64_t>& list) {
  Tree tree = array();
  for (const int64_t number : list) tree.add(scalar(std::to_string(number)));
  return tree;
}

Tree Tree::parse(const std::string& json) { return Parser(json).value(); }

std::string Tree::dump() const {
  if (kind == Kind::kScalar) return text;
  std::string out = kind == Kind::kObject ? "{" : "[";
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ",";
    if (kind == Kind::kObject) out += '"' + items[i].first + "\":";
    out += items[i].second.dump();
  }
  return out + (kind == Kind::kObject ? "}" : "]");
}

const Tree* Tree::find(const std::string& key) const {
  for (const auto& [name, value] : items) {
    if (kind == Kind::kObject && name == key) return &value;
  }
  return nullptr;
}

Tree* Tree::find(const std::string& key) {
  return const_cast<Tree*>(static_cast<const Tree*>(this)->find(key));
}

void Tree::set(const std::string& key, Tree value) {
  if (Tree* found = find(key)) {
    *found = std::move(value);
  } else {
    items.emplace_back(key, std::move(value));
  }
}

bool Tree::as_integer(int64_t* value) const {
  if (kind != Kind::kScalar || text.empty()) return false;
  char* end = nullptr;
  errno = 0;
  *value = std::strtoll(text.c_str(), &end, 10);
  return errno == 0 && *end == '\0';
}

bool Tree::as_real(double* value) const {
  if (kind != Kind::kScalar || text.empty()) return false;
  char* end = nullptr;
  *value = std::strtod(text.c_str(), &end);
  return *end == '\0';
}

std::vector<Tree*> Tree::places() {
  std::vector<Tree*> found;
  for (auto& [name, value] : items) {
    found.push_back(&value);
    const std::vector<Tree*> below = value.places();
    found.insert(found.end(), below.begin(), below.end());
  }
  return found;
}

std::string escaped(const std::string& plain) {
  std::string out;
  for (const char c : plain) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string unescaped(const std::string& quoted) {
  std::string out;
  for (size_t i = 0; i < quoted.size(); ++i) {
    if (quoted[i] == '\\' && i + 1 < quoted.size()) ++i;
    out += quoted[i];
  }
  return out;
}

}  // namespace kernelprune::fuzz
