#include "plan/cost.h"

#include "plan/cost_table.h"

namespace kernelprune {

double step_cost(const std::string& isa, const std::string& kernel, int width,
                 const CostTerms& terms) {
  const CostRates* rates = nullptr;
  for (const CostTableRow& row : kCostTable) {
    if (isa != row.isa) continue;
    const bool any = std::string("any") == row.kernel;
    if (any && rates == nullptr) rates = &row.rates;
    if (kernel == row.kernel && width == row.width) {
      rates = &row.rates;
      break;
    }
  }
  double cost = kCostPerStep;
  if (rates != nullptr) {
    cost += terms.macs * rates->macs + terms.visits * rates->visits + terms.rows * rates->rows +
            terms.values * rates->values + terms.far * rates->far;
  }
  return cost;
}

}  // namespace kernelprune
