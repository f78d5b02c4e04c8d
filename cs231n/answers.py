"""Answers to the notebooks' questions that are numbers: each function returns what you have worked out.

A number may be rounded to three digits, unless it is a count of things, which has to be exact.
"""

import math

# --- notebook 01 ---


def parameters_of_the_net():
    """How many numbers are there in the params of `FullyConnectedNet([200, 50])`?

    It takes images of 3 x 32 x 32 numbers and distinguishes 10 classes.
    """
    return 3072 * 200 + 200 + 200 * 50 + 50 + 50 * 10 + 10


def losses_after_a_change_of_scores():
    """Question 1.3, in numbers.  An example has the scores 1 and 3 of two classes; the second class is true.

    Returns its softmax loss, the loss after 5 is added to both scores, and the loss after both are multiplied by 5.
    """
    return math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2)), math.log(1 + math.exp(-10))


def steps_of_momentum():
    """After how many steps has the velocity reached 99 % of its limit, if the gradient stays the same and mu = 0.9?

    The velocity starts at 0.  Returns the number of the first step after which it is at least 99 %.
    """
    return math.ceil(math.log(0.01) / math.log(0.9))


def images_to_tell_two_nets_apart():
    """Question 1.7, in numbers.  Two nets are right on half of the images; each is tested on N images of its own.

    Returns the N for which a difference of one percentage point, 0.01, is two standard errors of the difference.
    """
    return 8 * 0.5 * 0.5 / 0.01**2


# --- notebook 02 ---


def images_in_the_statistics():
    """Question 2.8: over how many images are the statistics of batch norm taken on 8 devices with 4 images on each?

    The devices do not exchange them.
    """
    return 4


def numbers_in_a_mean():
    """Of how many numbers is each mean taken for x (16, 8, 14, 14), that is N = 16, C = 8, H = W = 14?

    Returns three counts: in spatial batch norm, in layer norm, and in group norm with 4 groups.
    """
    return 16 * 14 * 14, 8 * 14 * 14, 2 * 14 * 14


def scale_without_relu():
    """Question 2.5, in numbers.  Which deviation of the weights keeps the size of a signal in a net without ReLU?

    Each layer has 400 inputs and outputs, weights of mean 0, and biases of 0.
    """
    return 1 / math.sqrt(400)


def batches_to_forget_the_start():
    """After how many batches has the start of a running average less than 1 % of its influence, at momentum 0.95?"""
    return math.ceil(math.log(0.01) / math.log(0.95))


# --- notebook 03 ---


def dropout_twice():
    """Question 3.2, with two probabilities.  Dropout with p = 0.5 is followed by dropout with p = 0.8, on a unit at 1.

    Returns the keep probability of the pair, and the variance of its output.
    """
    return 0.4, 0.6 / 0.4


def draws_for_a_standard_error():
    """Of how many draws has the mean a standard error of 0.01, for a unit at x = 1 and dropout with p = 0.25?"""
    return 0.75 / 0.25 / 0.01**2


def variance_ratio_at_test_time():
    """Section 3.7: the variance at test time over that in training, after dropout with p = 0.8.

    The units are those of a ReLU whose input is standard normal.
    """
    return (1 / 2 - 1 / (2 * math.pi)) / (1 / (2 * 0.8) - 1 / (2 * math.pi))


# --- notebook 04 ---


def two_small_filters():
    """Question 4.1, in numbers.  Two convolutions with 3 x 3 filters, 16 channels all along, follow each other.

    Both have stride 1 and no biases.  Returns how many pixels wide the square is that one output of the second depends
    on, the number of weights of the pair, and that of a single layer, from 16 channels to 16, that sees as much.
    """
    return 5, 2 * 16 * 16 * 3 * 3, 16 * 16 * 5 * 5


def strided_convolution():
    """A convolution of x (100, 3, 32, 32) with 16 filters of 5 x 5, at stride 2 and pad 1.

    Returns the number of rows of its output, the number of entries of X_col for the whole batch, and the number of
    multiplications of the matrix product.
    """
    return 15, 3 * 25 * 100 * 15 * 15, 16 * 3 * 25 * 100 * 15 * 15


def a_second_convolution():
    """The net: 16 filters of 5 x 5 at pad 2, ReLU, 2 x 2 max-pool, affine layer of 100 units, ReLU, affine layer.

    It takes images of 3 x 32 x 32 numbers.  A second convolution, 32 filters of 3 x 3 at pad 1, with ReLU and 2 x 2
    max-pool, follows the first pool.  Returns the number of its weights and biases, and the number of weights of the
    layer of 100 units, after the change over before.
    """
    return 32 * 16 * 3 * 3 + 32, (32 * 8 * 8) / (16 * 16 * 16)


def ties_after_a_relu():
    """A 3 x 3 window of a feature map after a ReLU, whose inputs are independent and symmetric about 0.

    Returns the probability that all nine of its pixels are 0.  And if they are: the sum of the nine slopes of the
    window's maximum that central differences measure, one for each pixel of the map after the ReLU.
    """
    return 1 / 512, 4.5


# --- notebook 05 ---


def running_variances():
    """Section 5.1.  In each of 10 training batches of 16 examples, the biased variance of a feature is 4.

    Returns the running variance that the batch norm of notebook 02 then has, at momentum 0.9 and from a start of 0, and
    the one that PyTorch has, at momentum 0.1 and from a start of 1.
    """
    kept = 0.9**10
    return 4 * (1 - kept), kept + (1 - kept) * 4 * 16 / 15


def thirty_sums():
    """Section 5.2.  A program with autograd computes h = h + h, thirty times, and then calls backward.

    Returns the gradient of the last h with respect to the first, and how often backward calls the backward function of
    a sum.
    """
    return 2**30, 30


def length_of_a_gradient():
    """Section 5.3.  In each of 16 residual blocks J^T ds is orthogonal to ds, and twice as long, without the ReLUs.

    Returns the factor by which the gradient is longer at the first block's input than at the last block's output.
    """
    return math.sqrt(1 + 2**2) ** 16


def reach_of_the_last_stage():
    """Question 5.4, in numbers: how many pixels to each side of its own place does a last stage's output depend on?

    The net is `ResNet((64, 128, 256, 512), blocks=2)`: its convolutions are 3 x 3, those of the shortcuts 1 x 1, and
    each stage but the first begins with stride 2.  Images are so large that their border does not matter.
    """
    return 1 + 4 + (1 + 3 * 2) + (2 + 3 * 4) + (4 + 3 * 8)


def one_large_filter():
    """Question 5.4, in numbers.  A residual block gets one 5 x 5 convolution in place of its two of 3 x 3.

    There are C channels throughout.  Returns the number of weights of its convolutions, after the change over before.
    """
    return 25 / 18


def versions_of_a_picture():
    """Section 5.5.  Crops of a picture that is padded by 4 pixels, mirrored or not, give 162 equally likely versions.

    Returns the first number of epochs after which at least half of the pictures have been shown twice in one of their
    versions, and the expected number of different versions of a picture that 30 epochs show.
    """
    return 16, 162 * (1 - (161 / 162) ** 30)


def descent_with_noise():
    """Section 5.6.  SGD on the loss x^2 / 2, with the learning rate eta: x <- x - eta (x + noise).

    Returns the first number of steps after which x^2 is below 1 % of its start, for eta = 0.1 and without noise; and
    the limit of the mean of x^2 for eta = 0.2 and noise of mean 0 and variance 1, independent from step to step.
    """
    return math.ceil(math.log(0.01) / math.log(0.9**2)), 0.2 / (2 - 0.2)


def without_zero_grad():
    """Question 5.7, in numbers.  Plain SGD, with the same gradient in each step, and a loop that never resets it.

    Returns how many times as far as it should w has moved after 10 steps.
    """
    return sum(range(1, 11)) / 10
