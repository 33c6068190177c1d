#include "cpu/plan/cost.h"

#include <string_view>

#include "cpu/plan/cost_table.h"

namespace kernelprune {
namespace {

CostRates find_rates(std::string_view isa, std::string_view kernel, int width) {
  CostRates rates;
  for (const CostTableRow& row : kCostTable) {
    if (isa != row.isa) continue;
    if (kernel == row.kernel && width == row.width) return row.rates;
    if (row.kernel == std::string_view("any")) rates = row.rates;
  }
  return rates;
}

}  // namespace

double CostModel::step(const char* isa, const char* kernel, int width, const CostTerms& terms) {
  const auto [entry, is_new] = rates_.try_emplace({kernel, width});
  CostRates& rates = entry->second;
  if (is_new) rates = find_rates(isa, kernel, width);
  return kCostPerStep +
         (terms.macs * rates.macs + terms.lookups * rates.lookups +
          terms.output_tiles * rates.output_tiles + terms.moved_floats * rates.moved_floats +
          terms.uncached_macs * rates.uncached_macs);
}

}  // namespace kernelprune
