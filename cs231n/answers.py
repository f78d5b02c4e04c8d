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
