// Elementary functions through a program of one operation, against libm in a wider type.
#include <cmath>
#include <limits>

#include "run.h"
#include "suite.h"

namespace core_test {
namespace {

// The limits stated in csrc/kernels/functions.h, in units in the last place.
struct Function {
    const char* code;
    long double (*exact)(long double);
    double limit;
};

long double sigmoid(long double x) { return 1 / (1 + std::exp(-x)); }
long double exponential(long double x) { return std::exp(x); }
long double hyperbolic(long double x) { return std::tanh(x); }

const Function kFunctions[] = {{"exp", exponential, 1.5}, {"sig", sigmoid, 2.5}, {"tnh", hyperbolic, 3}};

std::string text_of(const std::string& code) {
    return "unrolled-program 1\nstate H\ninput 1 H\nnode x H 0\nnode " + code +
           " H 0\nforward 1\nstored\nsource\ndx -\ndstate -\ndvector\n";
}

// In units in the last place of the exact value. Subnormal results may be flushed.
template <class T>
bool close(T actual, long double exact, double limit) {
    if (std::isnan(exact)) return std::isnan(actual);
    const long double largest = std::numeric_limits<T>::max();
    if (exact > largest) return std::isinf(actual) && actual > 0;
    if (std::fabs(exact) < std::numeric_limits<T>::min())
        return std::fabs(actual) <= std::numeric_limits<T>::min();
    const int unit = std::ilogb(exact) - std::numeric_limits<T>::digits + 1;
    return std::fabs(static_cast<long double>(actual) - exact) <= limit * std::ldexp(1.0L, unit);
}

Vector arguments(double low, double high, Index count) {
    Vector made;
    for (Index k = 0; k < count; ++k) {
        const double step = static_cast<double>(k) / static_cast<double>(count - 1);
        made.push_back(static_cast<float>(low + (high - low) * step));
        const double tiny = std::pow(10.0, -30 + 30 * step);
        made.push_back(static_cast<float>(k % 2 ? tiny : -tiny));
    }
    for (double x : {0.0, -0.0, 1e30, -1e30}) made.push_back(static_cast<float>(x));
    made.push_back(std::numeric_limits<double>::infinity());
    made.push_back(-std::numeric_limits<double>::infinity());
    made.push_back(std::numeric_limits<double>::quiet_NaN());
    return made;
}

// H weights multiply each argument, which fills the lanes with different numbers.
template <class T>
void check_function(const Function& function, Index count, Subject& subject) {
    constexpr bool wide = sizeof(T) == sizeof(double);
    const unrolled::Program program = load(text_of(function.code), 17, 1);
    const Vector given = arguments(wide ? -760 : -110, wide ? 720 : 92, count);
    Problem problem(program, {1, static_cast<Index>(given.size()), 1, 17, Layout::time, false}, 1);
    problem.tokens.values = given;
    problem.weights[0].bias.given = false;
    for (std::size_t u = 0; u < 17; ++u)
        problem.weights[0].weight.values[u] = 1 - static_cast<double>(u) / 64;
    Run<T> run(problem, 1);
    run.forward(*subject.build);
    const Vector actual = run.results()[0].values;
    std::string far;
    for (std::size_t k = 0; k < actual.size() && far.empty(); ++k) {
        const T x = static_cast<T>(given[k / 17]) * static_cast<T>(problem.weights[0].weight.values[k % 17]);
        if (!close(static_cast<T>(actual[k]), function.exact(x), function.limit))
            far = " of " + std::to_string(x) + ": " + std::to_string(actual[k]);
    }
    subject.checks.that(far.empty(), std::string(subject.build->name) + (wide ? " double " : " float ") +
                                         function.code + far);
}

}  // namespace

void check_functions(bool quick, std::vector<Subject>& subjects) {
    const Index count = quick ? 2000 : 20000;
    for (Subject& subject : subjects)
        for (const Function& function : kFunctions) {
            check_function<float>(function, count, subject);
            check_function<double>(function, count, subject);
        }
}

}  // namespace core_test
