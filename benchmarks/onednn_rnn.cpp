// Times oneDNN's vanilla_rnn beside the Python libraries, as a process that stays alive: one command
// a line on stdin, one answer a line on stdout, in the protocol of `_peers_worker.py`. oneDNN knows no
// lengths, so it computes the padding too; a cotangent of 0 there makes its gradients the ragged ones.
//
// Build: g++ -O2 -std=c++17 onednn_rnn.cpp -o onednn_rnn -ldnnl   (oneDNN 2; Debian: libdnnl-dev)

#include <oneapi/dnnl/dnnl.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;

// The same numbers as `make_problem` in `_peers_data.py`, stream for array.
enum Stream : std::uint32_t { X, A0, WAX, WAA, WYA, BA, BY, COTANGENT, LENGTHS };

std::uint32_t scramble(Stream stream, std::size_t index) {
    std::uint32_t h = static_cast<std::uint32_t>(index) + (stream + 1) * 0x9E3779B9u;
    h = (h ^ h >> 16) * 0x7FEB352Du;
    h = (h ^ h >> 15) * 0x846CA68Bu;
    return h ^ h >> 16;
}

float uniform(Stream stream, std::size_t index, float scale) {
    return (static_cast<float>(scramble(stream, index) >> 8) * 0x1p-23f - 1) * scale;
}

struct Shape {
    memory::dim n_x, n_a, n_y, m, T;
    bool full;

    memory::dim length(std::size_t sample) const {
        const memory::dim shortest = std::max<memory::dim>(1, T / 4);
        return full ? T : shortest + scramble(LENGTHS, sample) % (T - shortest + 1);
    }
};

float *values(const memory &array) { return static_cast<float *>(array.get_data_handle()); }

std::size_t count(const memory &array) { return array.get_desc().get_size() / sizeof(float); }

class Layer {
  public:
    explicit Layer(const Shape &shape)
        : shape_(shape), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_),
          x_desc_({shape.T, shape.m, shape.n_x}, memory::data_type::f32, Tag::tnc),
          a_desc_({shape.T, shape.m, shape.n_a}, memory::data_type::f32, Tag::tnc),
          state_desc_({1, 1, shape.m, shape.n_a}, memory::data_type::f32, Tag::ldnc),
          bias_desc_({1, 1, 1, shape.n_a}, memory::data_type::f32, Tag::ldgo),
          wax_desc_({1, 1, shape.n_x, 1, shape.n_a}, memory::data_type::f32, Tag::ldigo),
          waa_desc_({1, 1, shape.n_a, 1, shape.n_a}, memory::data_type::f32, Tag::ldigo),
          any_wax_(wax_desc_.dims(), memory::data_type::f32, Tag::any),
          any_waa_(waa_desc_.dims(), memory::data_type::f32, Tag::any) {
        fill_inputs();
        prepare_forward(dnnl::prop_kind::forward_inference, inference_);
        prepare_backward(prepare_forward(dnnl::prop_kind::forward_training, training_));
    }

    void forward() { run(inference_); }

    void forward_and_backward() {
        run(training_);
        for (int key : {DNNL_ARG_DIFF_WEIGHTS_LAYER, DNNL_ARG_DIFF_WEIGHTS_ITER, DNNL_ARG_DIFF_BIAS}) {
            const memory &sum = backward_.arguments.at(key);  // oneDNN adds to what is there
            std::fill_n(values(sum), count(sum), 0.0f);
        }
        run(backward_);
    }

    memory::dim real_steps() const {
        memory::dim total = 0;
        for (memory::dim i = 0; i < shape_.m; ++i) total += shape_.length(i);
        return total;
    }

    // For each result its name, its product with an array of its shape, and the scale of an error.
    std::string check() {
        forward();
        forward_and_backward();
        const Arguments &of = backward_.arguments;
        std::ostringstream line;
        line.precision(17);
        line << "values";
        report(line, "a", inference_.arguments.at(DNNL_ARG_DST_LAYER), cotangent_);
        report(line, "dx", of.at(DNNL_ARG_DIFF_SRC_LAYER), x_);
        report(line, "da0", of.at(DNNL_ARG_DIFF_SRC_ITER), a0_);
        report(line, "dWax", plain(of.at(DNNL_ARG_DIFF_WEIGHTS_LAYER), wax_desc_), wax_);
        report(line, "dWaa", plain(of.at(DNNL_ARG_DIFF_WEIGHTS_ITER), waa_desc_), waa_);
        report(line, "dba", of.at(DNNL_ARG_DIFF_BIAS), bias_);
        return line.str();
    }

  private:
    // A primitive, and the weights in the layout it asks for: they are reordered at every call, as
    // weights that an optimizer has just changed must be.
    struct Pass {
        dnnl::primitive primitive;
        memory wax, waa;
        Arguments arguments;
    };

    memory make(const memory::desc &desc) { return memory(desc, engine_); }

    memory make(const memory::desc &desc, Stream stream, float scale = 1) {
        memory array(desc, engine_);
        for (std::size_t i = 0; i < count(array); ++i) values(array)[i] = uniform(stream, i, scale);
        return array;
    }

    // Weights are generated as (n_a, depth) and stored here as (depth, n_a).
    memory make_weights(const memory::desc &desc, Stream stream, memory::dim depth, float scale) {
        memory array(desc, engine_);
        for (memory::dim j = 0; j < shape_.n_a; ++j)
            for (memory::dim k = 0; k < depth; ++k)
                values(array)[k * shape_.n_a + j] = uniform(stream, j * depth + k, scale);
        return array;
    }

    void fill_inputs() {
        const auto root = [](memory::dim n) { return static_cast<float>(std::sqrt(double(n))); };
        x_ = make(x_desc_, X);
        a0_ = make(state_desc_, A0);
        wax_ = make_weights(wax_desc_, WAX, shape_.n_x, 1 / root(shape_.n_x));
        waa_ = make_weights(waa_desc_, WAA, shape_.n_a, 0.75f / root(shape_.n_a));
        bias_ = make(bias_desc_, BA, 0.5f);
        cotangent_ = make(a_desc_, COTANGENT);
        for (memory::dim t = 0, at = 0; t < shape_.T; ++t)
            for (memory::dim i = 0; i < shape_.m; ++i, at += shape_.n_a)
                if (t >= shape_.length(i)) std::fill_n(values(cotangent_) + at, shape_.n_a, 0.0f);
    }

    dnnl::vanilla_rnn_forward::primitive_desc prepare_forward(dnnl::prop_kind kind, Pass &pass) {
        dnnl::vanilla_rnn_forward::primitive_desc desc(
            {kind, dnnl::algorithm::eltwise_tanh, dnnl::rnn_direction::unidirectional_left2right,
             x_desc_, state_desc_, any_wax_, any_waa_, bias_desc_, a_desc_, state_desc_},
            engine_);
        pass.primitive = dnnl::vanilla_rnn_forward(desc);
        pass.wax = make(desc.weights_layer_desc());
        pass.waa = make(desc.weights_iter_desc());
        pass.arguments = {{DNNL_ARG_SRC_LAYER, x_},          {DNNL_ARG_SRC_ITER, a0_},
                          {DNNL_ARG_WEIGHTS_LAYER, pass.wax}, {DNNL_ARG_WEIGHTS_ITER, pass.waa},
                          {DNNL_ARG_BIAS, bias_},             {DNNL_ARG_DST_LAYER, make(a_desc_)},
                          {DNNL_ARG_DST_ITER, make(state_desc_)}};
        if (kind == dnnl::prop_kind::forward_training)
            pass.arguments[DNNL_ARG_WORKSPACE] = make(desc.workspace_desc());
        return desc;
    }

    void prepare_backward(const dnnl::vanilla_rnn_forward::primitive_desc &forward_desc) {
        dnnl::vanilla_rnn_backward::primitive_desc desc(
            {dnnl::prop_kind::backward, dnnl::algorithm::eltwise_tanh,
             dnnl::rnn_direction::unidirectional_left2right, x_desc_, state_desc_, any_wax_, any_waa_,
             bias_desc_, a_desc_, state_desc_, x_desc_, state_desc_, any_wax_, any_waa_, bias_desc_,
             a_desc_, state_desc_},
            engine_, forward_desc);
        backward_.primitive = dnnl::vanilla_rnn_backward(desc);
        backward_.wax = make(desc.weights_layer_desc());
        backward_.waa = make(desc.weights_iter_desc());
        memory no_gradient = make(state_desc_);
        std::fill_n(values(no_gradient), count(no_gradient), 0.0f);
        backward_.arguments = training_.arguments;
        const Arguments own = {{DNNL_ARG_WEIGHTS_LAYER, backward_.wax},
                               {DNNL_ARG_WEIGHTS_ITER, backward_.waa},
                               {DNNL_ARG_DIFF_DST_LAYER, cotangent_},
                               {DNNL_ARG_DIFF_DST_ITER, no_gradient},
                               {DNNL_ARG_DIFF_SRC_LAYER, make(x_desc_)},
                               {DNNL_ARG_DIFF_SRC_ITER, make(state_desc_)},
                               {DNNL_ARG_DIFF_WEIGHTS_LAYER, make(desc.diff_weights_layer_desc())},
                               {DNNL_ARG_DIFF_WEIGHTS_ITER, make(desc.diff_weights_iter_desc())},
                               {DNNL_ARG_DIFF_BIAS, make(bias_desc_)}};
        for (const auto &argument : own) backward_.arguments[argument.first] = argument.second;
    }

    void reorder(memory from, memory to) { dnnl::reorder(from, to).execute(stream_, from, to); }

    void run(Pass &pass) {
        reorder(wax_, pass.wax);
        reorder(waa_, pass.waa);
        pass.primitive.execute(stream_, pass.arguments);
        stream_.wait();
    }

    memory plain(const memory &array, const memory::desc &desc) {
        memory copy = make(desc);
        reorder(array, copy);
        stream_.wait();
        return copy;
    }

    static void report(std::ostream &line, const char *name, const memory &result, const memory &with) {
        double product = 0, norm = 0, weight = 0;
        const std::size_t size = count(with);
        const bool masked = std::string(name) == "a";  // 0 where the cotangent is: padding
        for (std::size_t i = 0; i < size; ++i) {
            const double r = values(result)[i], w = values(with)[i];
            product += r * w;
            norm += masked && w == 0 ? 0 : r * r;
            weight += w * w;
        }
        line << ' ' << name << ' ' << product << ' ' << std::sqrt(norm * weight / size);
    }

    Shape shape_;
    dnnl::engine engine_;
    dnnl::stream stream_;
    memory::desc x_desc_, a_desc_, state_desc_, bias_desc_, wax_desc_, waa_desc_, any_wax_, any_waa_;
    memory x_, a0_, wax_, waa_, bias_, cotangent_;
    Pass inference_, training_, backward_;
};

double milliseconds(const std::function<void()> &call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// As `median_time` of the Python worker: calls to warm up unless the first is long, then a median.
double median_time(const std::function<void()> &call, double seconds) {
    double warm = milliseconds(call);
    if (warm > 250) return warm;
    while (warm < 1e3 * seconds) warm += milliseconds(call);
    std::vector<double> times;
    double total = 0;
    while (times.size() < 3 || total < 1e3 * seconds) {
        times.push_back(milliseconds(call));
        total += times.back();
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

std::string answer(const std::string &line, std::unique_ptr<Layer> &layer) {
    std::istringstream words(line);
    std::string command, what;
    std::ostringstream reply;
    words >> command;
    if (command == "load") {
        Shape shape;
        words >> shape.n_x >> shape.n_a >> shape.n_y >> shape.m >> shape.T >> shape.full;
        layer.reset();
        layer = std::make_unique<Layer>(shape);
        reply << "ready " << layer->real_steps();
    } else if (command == "check") {
        return layer->check();
    } else {
        double seconds = 0;
        words >> what >> seconds;
        const bool forward = what == "forward";
        const auto call = [&] { forward ? layer->forward() : layer->forward_and_backward(); };
        reply << "ms " << median_time(call, seconds);
    }
    return reply.str();
}

}  // namespace

int main() {
    const dnnl_version_t *version = dnnl_version();
    std::cout << "hello oneDNN " << version->major << '.' << version->minor << '.' << version->patch
              << std::endl;
    std::unique_ptr<Layer> layer;
    for (std::string line; std::getline(std::cin, line);) {
        std::string reply;
        try {
            reply = answer(line, layer);
        } catch (const std::exception &error) {
            reply = std::string("error ") + error.what();
        }
        std::cout << reply << std::endl;
    }
}
