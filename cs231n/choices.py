"""What a learner chooses: exercises in which the numbers are yours, and training says whether they were good."""


def overfit_settings():
    """Settings with which a five-layer net memorizes 50 pictures.

    The net: four hidden layers of 100 ReLU units, 32 x 32 x 3 inputs from 0 to 255 less their mean image, ten classes,
    in float32.  It is trained by plain SGD, w <- w - learning_rate * dw, for 40 steps, on 25 of the pictures at a time.
    Returns a dict of two numbers above 0: learning_rate, and weight_scale, the standard deviation of the initial
    weights.  With them, all 50 pictures have to be classified correctly after the last step.
    """
    return {"learning_rate": 3e-3, "weight_scale": 0.07}
